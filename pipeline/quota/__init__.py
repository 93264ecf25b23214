"""How much each tenant may ask for: requests and tokens per minute."""
