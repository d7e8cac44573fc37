"""Files written atomically, locks, and object stores."""
