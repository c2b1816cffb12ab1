/*
 * The Redis protocol (RESP2), as far as a server needs it: requests are arrays of bulk strings, or a line of words;
 * answers are appended to a text.
 */
#ifndef TRAM_EXAMPLES_RESP_H
#define TRAM_EXAMPLES_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Bytes that grow ---- */

struct text {
    char *bytes;
    size_t size, capacity;
    bool failed; /* out of memory: what came since is not in it */
};

static inline bool text_reserve(struct text *text, size_t more) {
    if (text->capacity - text->size >= more)
        return true;
    size_t capacity = text->capacity ? text->capacity * 2 : 64;
    while (capacity - text->size < more)
        capacity *= 2;
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) {
        text->failed = true;
        return false;
    }
    text->bytes = bytes;
    text->capacity = capacity;
    return true;
}

static inline void text_add(struct text *text, const void *bytes, size_t size) {
    if (!size || !text_reserve(text, size))
        return;
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

static inline void text_free(struct text *text) {
    free(text->bytes);
    *text = (struct text){0};
}

/* ---- Answers ---- */

static inline void add_text(struct text *text, const char *line) {
    text_add(text, line, strlen(line));
}

/* ":12\r\n", "$5\r\n", "*3\r\n" */
static inline void add_number(struct text *text, char kind, int64_t number) {
    char line[24], *end = line + sizeof line, *begin = end;
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    *--begin = '\n';
    *--begin = '\r';
    do
        *--begin = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        *--begin = '-';
    *--begin = kind;
    text_add(text, begin, (size_t)(end - begin));
}

static inline void add_bulk(struct text *text, const void *bytes, size_t size) {
    add_number(text, '$', (int64_t)size);
    text_add(text, bytes, size);
    text_add(text, "\r\n", 2);
}

static inline void add_nil(struct text *text) {
    text_add(text, "$-1\r\n", 5);
}

static inline void add_ok(struct text *text) {
    text_add(text, "+OK\r\n", 5);
}

/* ---- Requests ---- */

struct word {
    const char *bytes;
    size_t size;
};

/* The words of a request; they lie in what was received. */
struct words {
    struct word *word;
    size_t count, capacity;
};

#define WORDS_MAX (1024 * 1024)
#define WORD_MAX  (512 * 1024 * 1024)
#define LINE_MAX  (64 * 1024)

static inline bool words_add(struct words *words, const char *bytes, size_t size) {
    if (words->count == words->capacity) {
        size_t capacity = words->capacity ? words->capacity * 2 : 16;
        struct word *word = realloc(words->word, capacity * sizeof *word);
        if (!word)
            return false;
        words->word = word;
        words->capacity = capacity;
    }
    words->word[words->count++] = (struct word){bytes, size};
    return true;
}

/* A whole decimal number, and nothing else. */
static inline bool read_number(const char *bytes, size_t size, int64_t *ret_number) {
    bool negative = size && *bytes == '-';
    uint64_t number = 0;
    size_t digits = size - negative;
    if (!digits || digits > 19 || (digits > 1 && bytes[negative] == '0') || (negative && bytes[1] == '0'))
        return false;
    for (size_t i = negative; i < size; i++) {
        if (bytes[i] < '0' || bytes[i] > '9')
            return false;
        number = number * 10 + (uint64_t)(bytes[i] - '0');
    }
    if (number > (uint64_t)INT64_MAX + negative)
        return false;
    *ret_number = negative ? (int64_t)(-number) : (int64_t)number;
    return true;
}

/* The end of the line that begins here, its line feed; NULL: it is not there yet. */
static inline const char *line_end(const char *bytes, const char *end) {
    return memchr(bytes, '\n', (size_t)(end - bytes));
}

/* What became of reading a request. */
enum parsed { PARSED, INCOMPLETE, OUT_OF_MEMORY, BAD_REQUEST };

/* A line of words, as one types it. */
static inline enum parsed parse_line(const char *data, size_t size, struct words *words, size_t *ret_used,
                                     const char **ret_problem) {
    const char *end = line_end(data, data + size);
    *ret_problem = "too big inline request";
    if (!end)
        return size > LINE_MAX ? BAD_REQUEST : INCOMPLETE;
    *ret_used = (size_t)(end - data) + 1;
    for (const char *at = data; at < end;) {
        while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
            at++;
        const char *begin = at;
        while (at < end && *at != ' ' && *at != '\t' && *at != '\r')
            at++;
        if (at > begin && !words_add(words, begin, (size_t)(at - begin)))
            return OUT_OF_MEMORY;
    }
    return PARSED;
}

/* "*2" or "$5" with its line end: the number. *at moves behind it. */
static inline enum parsed parse_count(const char **at, const char *end, int64_t most, int64_t *ret_number) {
    const char *line = line_end(*at, end);
    if (!line)
        return end - *at > LINE_MAX ? BAD_REQUEST : INCOMPLETE;
    size_t size = (size_t)(line - *at) - 1;
    if (line == *at + 1 || line[-1] != '\r' || !read_number(*at + 1, size - 1, ret_number) || *ret_number > most)
        return BAD_REQUEST;
    *at = line + 1;
    return PARSED;
}

/*
 * Reads one request. PARSED: its words, none for an empty one, and how many bytes it took. INCOMPLETE: it needs at
 * least *ret_used bytes in all. BAD_REQUEST: what is wrong with it.
 */
static inline enum parsed parse_request(const char *data, size_t size, struct words *words, size_t *ret_used,
                                        const char **ret_problem) {
    words->count = 0;
    *ret_used = size + 1;
    if (*data != '*')
        return parse_line(data, size, words, ret_used, ret_problem);
    const char *at = data, *end = data + size;
    int64_t count, length;
    *ret_problem = "invalid multibulk length";
    enum parsed parsed = parse_count(&at, end, WORDS_MAX, &count);
    for (; parsed == PARSED && count > 0; count--) {
        if (at == end)
            return INCOMPLETE;
        *ret_problem = "expected '$'";
        if (*at != '$')
            return BAD_REQUEST;
        *ret_problem = "invalid bulk length";
        parsed = parse_count(&at, end, WORD_MAX, &length);
        if (parsed != PARSED)
            return parsed;
        if (length < 0)
            return BAD_REQUEST;
        if (end - at < length + 2) {
            *ret_used = (size_t)(at - data) + (size_t)length + 2;
            return INCOMPLETE;
        }
        if (!words_add(words, at, (size_t)length))
            return OUT_OF_MEMORY;
        at += length + 2;
    }
    if (parsed == PARSED)
        *ret_used = (size_t)(at - data);
    return parsed;
}

#endif
