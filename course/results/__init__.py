"""From the gradebook to people: reports, standings, rubric sheets, exports."""
