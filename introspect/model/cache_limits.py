"""What a check that has the cache and the ids alone cannot see, for people; measured, or certain."""

OUT_OF_REACH = ("a fault of fewer than 4 rounding steps of the value, in any layer",)
