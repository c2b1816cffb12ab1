/*
 * The bytes of an input, and what stands before each call that takes some.
 *
 * The stream is numbered by byte. Of it an input has two pieces: what was kept, in a block of its own, and what was
 * borrowed, the bytes of the feed that is running. A message in one of them is seen where it is; one that spans both is
 * made whole by moving to the block as many borrowed bytes as it needs. One thread: the loop's.
 */
#ifndef TRAM_PROTOCOLS_INPUT_INPUT_H
#define TRAM_PROTOCOLS_INPUT_INPUT_H

#include <stdbool.h>

#include <tram/input.h>

enum input_flag {
    INPUT_PAUSED = 1 << 0,        /* input->pauses is not 0 */
    INPUT_EOF = 1 << 1,           /* nothing more will come */
    INPUT_PARSING = 1 << 2,       /* the parser is on the stack */
    INPUT_REFUSED = 1 << 3,       /* a call was refused because of the pause: there may be something to parse */
    INPUT_MARKED = 1 << 4,        /* the mark is set */
    INPUT_HOLDS_READING = 1 << 5, /* the transport was paused by the input */
    INPUT_LACKING = 1 << 6,       /* the last call that failed needs more bytes */
    INPUT_CONNECTED = 1 << 8,     /* the protocol had a transport when bytes came */
    INPUT_BROKEN = 1 << 9,        /* bytes could not be kept: there is a hole in the stream */
    INPUT_VIEWED = 1 << 10,       /* views outlive the next feed: nothing that they may point into is moved or freed */
    INPUT_ENDING = 1 << 11,       /* the transport is closed when nothing is left to be parsed */
    INPUT_CLOSES = 1 << 7,        /* feed_eof asked to stay open: the transport is closed when all is parsed */
};

/* One past the last byte that is there. */
static inline uint64_t input_end(const tram_input *input) {
    return input->base + input->size + input->borrowed_size;
}

/* `size` bytes from `from` on, which are there, in one piece. -ENOMEM: they could not be joined. */
int tram__input_view(tram_input *input, uint64_t from, size_t size, const char **ret_bytes);

/* The piece in which the byte at `from`, which is there, lies. */
tram_bytes tram__input_piece(const tram_input *input, uint64_t from);

/* Copies what is borrowed and not consumed; views end here. -ENOMEM: it is lost. */
int tram__input_keep(tram_input *input);

/* Frees blocks that were outgrown, and the block if nothing of it is left. */
void tram__input_tidy(tram_input *input);

/* Frees all blocks, for good. */
void tram__input_free(tram_input *input);

/* 0; -EAGAIN while nothing may be taken; -ENOMEM when bytes were lost. */
int tram__input_enter(tram_input *input);

/* `size` bytes from the first one on are not there: -EAGAIN and more is read, or TRAM_EINCOMPLETE. */
int tram__input_lacks(tram_input *input, size_t size);

/* More than the limit allows, were `size` bytes more taken? Those from the mark on count, too. */
bool tram__input_over_limit(const tram_input *input, uint64_t size);

/*
 * Looks for whichever separator ends first, where it was not looked for before. True: *ret_size bytes come before it.
 * False: it does not begin in the first *ret_size bytes. `longest` of them all.
 */
bool tram__input_find(tram_input *input, const tram_bytes *separators, size_t count, size_t longest, size_t *ret_size,
                      size_t *ret_which);

/* The longest one; 0: there is none, or an empty one. */
size_t tram__input_longest(const tram_bytes *separators, size_t count);

/* Consumes; perhaps the transport reads again. */
void tram__input_advance(tram_input *input, size_t size);

#endif
