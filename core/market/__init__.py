"""What the market plugin knows of: indicators, fundamentals, macro figures, news and the macro risk score."""
