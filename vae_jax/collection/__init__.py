"""What people do with a finished run: neighbours, playlists, filters."""
