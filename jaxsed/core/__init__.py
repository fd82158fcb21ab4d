"""What everything else is built on: constants, random keys, linear algebra, errors."""
