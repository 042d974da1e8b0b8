"""What the pages and programs may ask of the studio, all below /api/v1."""
