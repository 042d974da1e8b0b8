"""What jobs draw and write for people: reports and their pictures."""
