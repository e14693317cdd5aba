"""The package high_order_layers_torch. As there, a module's public names include what it imports."""
