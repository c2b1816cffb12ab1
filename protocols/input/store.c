/* Where the bytes of an input are: borrowed ones, and a block for those that were kept. */
#include "protocols/input/input.h"

#include <string.h>

#include "core/base/compiler.h"
#include "core/base/memory.h"

#define BLOCK_MIN 256u

struct tram_input_block {
    struct tram_input_block *outgrown; /* the next of these */
    size_t capacity;
    char bytes[];
};

static void block_free(tram_input *input, struct tram_input_block *block) {
    memory_put(&input->allocator, block, sizeof *block + block->capacity);
}

/* Room for `live` bytes that are there, `added` ones, and as many again: so the copies of growth are paid for. */
static struct tram_input_block *block_new(tram_input *input, size_t live, size_t added) {
    size_t capacity = live;
    if (!size_add(&capacity, added) || !size_add(&capacity, capacity))
        return NULL;
    capacity = MAX(capacity, BLOCK_MIN);
    struct tram_input_block *block = memory_get_with(&input->allocator, sizeof *block, capacity);
    if (block)
        block->capacity = capacity;
    return block;
}

/* The first byte of the block that is still needed. */
static size_t block_begin(const tram_input *input) {
    uint64_t from = input->flags & INPUT_MARKED ? input->mark : input->at;
    uint64_t dead = from - input->base;
    return dead < input->size ? (size_t)dead : input->size;
}

static void forget_dead(tram_input *input, size_t dead) {
    input->base += dead;
    input->size -= dead;
}

/* Moves to a block with room for `added` more; the old one goes, or stays while views may point into it. */
static int grow(tram_input *input, size_t dead, size_t added) {
    struct tram_input_block *old = input->block, *block = block_new(input, input->size - dead, added);
    if (unlikely(!block))
        return -ENOMEM;
    forget_dead(input, dead);
    if (old) {
        memcpy(block->bytes, old->bytes + dead, input->size);
        old->outgrown = input->outgrown;
        input->outgrown = old;
    }
    input->block = block;
    return 0;
}

/* Room behind what is kept. In place where no view can be hurt, and where as many bytes are dead as are to be moved. */
static int make_room(tram_input *input, size_t added) {
    struct tram_input_block *block = input->block;
    if (block && added <= block->capacity - input->size)
        return 0;
    size_t dead = block_begin(input), live = input->size - dead;
    bool in_place = block && dead >= live && added <= block->capacity - live;
    if (!in_place || input->flags & (INPUT_PARSING | INPUT_VIEWED))
        return grow(input, dead, added);
    memmove(block->bytes, block->bytes + dead, live);
    forget_dead(input, dead);
    return 0;
}

/* Appends borrowed bytes to the block. */
static int move_borrowed(tram_input *input, size_t size) {
    int status = make_room(input, size);
    if (unlikely(status))
        return status;
    memcpy(input->block->bytes + input->size, input->borrowed, size);
    input->size += size;
    input->borrowed += size;
    input->borrowed_size -= size;
    return 0;
}

int tram__input_view(tram_input *input, uint64_t from, size_t size, const char **ret_bytes) {
    uint64_t kept_end = input->base + input->size;
    if (!size) {
        *ret_bytes = "";
        return 0;
    }
    if (from >= kept_end) {
        *ret_bytes = input->borrowed + (from - kept_end);
        return 0;
    }
    uint64_t present = kept_end - from;
    int status = size > present ? move_borrowed(input, size - (size_t)present) : 0;
    if (unlikely(status))
        return status;
    *ret_bytes = input->block->bytes + (from - input->base);
    return 0;
}

tram_bytes tram__input_piece(const tram_input *input, uint64_t from) {
    uint64_t kept_end = input->base + input->size;
    if (from < kept_end)
        return (tram_bytes){input->block->bytes + (from - input->base), (size_t)(kept_end - from)};
    size_t offset = (size_t)(from - kept_end);
    return (tram_bytes){input->borrowed + offset, input->borrowed_size - offset};
}

/* All that is kept was consumed. A block that is many times what is to come next goes. */
static void restart_block(tram_input *input) {
    struct tram_input_block *block = input->block;
    uint64_t kept_end = input->base + input->size;
    if (input->at < kept_end)
        return;
    size_t consumed = (size_t)(input->at - kept_end);
    input->borrowed = input->borrowed ? input->borrowed + consumed : NULL;
    input->borrowed_size -= consumed;
    input->base = input->at;
    input->size = 0;
    if (block && (!input->borrowed_size || block->capacity / 8 > input->borrowed_size + BLOCK_MIN)) {
        block_free(input, block);
        input->block = NULL;
    }
}

static void free_outgrown(tram_input *input) {
    struct tram_input_block *block = input->outgrown;
    input->outgrown = NULL;
    while (block) {
        struct tram_input_block *next = block->outgrown;
        block_free(input, block);
        block = next;
    }
}

void tram__input_tidy(tram_input *input) {
    if (input->flags & INPUT_VIEWED)
        return;
    free_outgrown(input);
    restart_block(input);
}

int tram__input_keep(tram_input *input) {
    tram__input_tidy(input);
    int status = input->borrowed_size ? move_borrowed(input, input->borrowed_size) : 0;
    if (unlikely(status))
        input->flags |= INPUT_BROKEN;
    input->borrowed = NULL;
    input->borrowed_size = 0;
    if (!(input->flags & INPUT_VIEWED))
        free_outgrown(input);
    return status;
}

void tram__input_free(tram_input *input) {
    free_outgrown(input);
    if (input->block)
        block_free(input, input->block);
    input->block = NULL;
}
