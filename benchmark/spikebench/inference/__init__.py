"""What is done to a built model: deploy forms, event-driven convolutions, export."""
