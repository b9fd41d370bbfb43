KEPT = []
while True:
    KEPT.append(bytearray(50_000_000))
