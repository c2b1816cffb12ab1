#include "core/base/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Control characters, surrogates, and what moves or hides its neighbours. */
static bool is_shown(uint32_t character) {
    static const struct {
        uint32_t first, last;
    } hidden[] = {{0, 0x1f},        {0x7f, 0x9f},     {0x200b, 0x200f}, {0x2028, 0x202e},   {0x2060, 0x206f},
                  {0xd800, 0xdfff}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f}, {0x110000, UINT32_MAX}};
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
        if (character >= hidden[i].first && character <= hidden[i].last)
            return false;
    return true;
}

/* How many bytes the character has that stands here; 0: it is none that may be shown. */
static size_t shown(const unsigned char *bytes, size_t left) {
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (bytes[0] < 0x80)
        return is_shown(bytes[0]);
    size_t size = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
    if (bytes[0] < 0xc2 || bytes[0] > 0xf4 || size > left)
        return 0;
    uint32_t character = bytes[0] & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (bytes[i] & 0x3f);
    }
    return character >= smallest[size] && is_shown(character) ? size : 0;
}

char *tram__text_escape(char *text, size_t size, const void *bytes, size_t length) {
    const unsigned char *from = bytes, *end = from + length;
    char *to = text, escaped[5];
    while (from < end) {
        size_t taken = shown(from, (size_t)(end - from)), count = taken;
        const void *source = from;
        if (*from == '\\' || !taken) {
            int written = *from == '\\' ? snprintf(escaped, sizeof escaped, "\\\\")
                                        : snprintf(escaped, sizeof escaped, "\\x%02x", *from);
            count = (size_t)written;
            source = escaped;
            taken = 1;
        }
        if (count >= size)
            break;
        memcpy(to, source, count);
        to += count;
        size -= count;
        from += taken;
    }
    *to = '\0';
    return text;
}
