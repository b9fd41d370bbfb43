"""What `main.py health` serves beside /health and /metrics: who may ask, and the REST API."""
