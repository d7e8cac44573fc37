"""Features as sharded TFRecords: written, verified and read."""
