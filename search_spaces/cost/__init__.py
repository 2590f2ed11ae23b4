"""What an architecture costs in closed form: parameters, operations, bytes, memory."""
