"""What a check that has the cache and the ids alone cannot see; each was measured or is certain."""

OUT_OF_REACH = (
    "A single element that is off by fewer than 4 rounding steps of its value, in any layer.",
    "In layers above the first, an element that is off by less than the rounding of its slot, where the"
    " pass that wrote the slot is not found among those tried (of all ids at once, and of 1 to 48, the"
    " short ones first, as far as the bound on the work goes). On the machine and thread count that filled"
    " the cache this concerns some slots in fp32; on"
    " another machine, thread count or attention backend it concerns most. Layer 0 is not affected.",
    "In fp32 with large K biases, above the first layer: an element of K that is off by less than its rotary"
    " pair's rounding. Single flips of rounding look just like it.",
    "A hidden slot to which the slots behind it gave next to no attention: where the state stays equal"
    " to the bit nothing can show it, where it moves by less than rounding nothing here does.",
    "What is only about to happen: a next position or a mask width that does not fit a sound cache, and"
    " a cache that another one shares memory with before either has grown. The check sees sharing inside"
    " one cache.",
    "Ids: a cache that is a faithful memo of the ids given is sound, whatever the conversation was. The"
    " ids have to come from somewhere that the code under test does not touch.",
    "Damage to the model itself, which recomputation repeats.",
    "Text: without a tokenizer a second system prompt is known by a header that repeats the first two"
    " ids, a missing newline is any single id missing in the middle, a control token one that also"
    " stands elsewhere in the ids.",
    "A mask that ends one slot too soon and a hole at the last slot leave the same state; both names"
    " are given.",
    "Keys turned to new positions in a model of one layer, and positions beyond 32,768.",
)
