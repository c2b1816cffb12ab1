#include "transports/metrics/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/compiler.h"

/* What is not UTF-8 becomes U+FFFD. */
#define REPLACEMENT "\xef\xbf\xbd"

int tram__metrics_flush(struct metrics_text *text) {
    if (text->used && text->status >= 0)
        text->status = text->append(text->arg, text->piece, text->used);
    text->used = 0;
    text->status = MIN(text->status, 0);
    return text->status;
}

static void put(struct metrics_text *text, const char *bytes, size_t size) {
    while (size) {
        if (text->used == sizeof text->piece)
            tram__metrics_flush(text);
        size_t room = sizeof text->piece - text->used, part = MIN(size, room);
        memcpy(text->piece + text->used, bytes, part);
        text->used += part;
        bytes += part;
        size -= part;
    }
}

static void put_text(struct metrics_text *text, const char *string) {
    put(text, string, strlen(string));
}

/* ---- Escaping ---- */

/* The bytes of the character that `at` begins with; 0: it is not UTF-8. Overlong forms and surrogates are not. */
static size_t utf8_size(const unsigned char *at) {
    static const struct {
        unsigned char last; /* first byte of this form; the others are below */
        unsigned char second_low, second_high;
        size_t size;
    } forms[] = {
        {0xdf, 0x80, 0xbf, 2}, {0xe0, 0xa0, 0xbf, 3}, {0xec, 0x80, 0xbf, 3}, {0xed, 0x80, 0x9f, 3},
        {0xef, 0x80, 0xbf, 3}, {0xf0, 0x90, 0xbf, 4}, {0xf3, 0x80, 0xbf, 4}, {0xf4, 0x80, 0x8f, 4},
    };
    if (*at < 0x80)
        return 1;
    for (size_t i = 0; *at >= 0xc2 && i < sizeof forms / sizeof *forms; i++) {
        if (*at > forms[i].last)
            continue;
        if (at[1] < forms[i].second_low || at[1] > forms[i].second_high)
            return 0;
        for (size_t j = 2; j < forms[i].size; j++)
            if ((at[j] & 0xc0) != 0x80)
                return 0;
        return forms[i].size;
    }
    return 0;
}

/* Quotes are escaped in labels only. */
static void put_escaped(struct metrics_text *text, const char *string, bool quotes) {
    for (const unsigned char *at = (const unsigned char *)string; *at;) {
        size_t size = utf8_size(at);
        if (*at == '\\')
            put_text(text, "\\\\");
        else if (*at == '\n')
            put_text(text, "\\n");
        else if (*at == '"' && quotes)
            put_text(text, "\\\"");
        else if (size)
            put(text, (const char *)at, size);
        else
            put_text(text, REPLACEMENT);
        at += size ? size : 1;
    }
}

/* ---- Lines ---- */

void tram__metrics_family(struct metrics_text *text, const char *name, const char *type, const char *help) {
    if (strcmp(text->family, name) == 0)
        return;
    text->family = name;
    put_text(text, "# HELP ");
    put_text(text, name);
    put_text(text, " ");
    put_escaped(text, help, false);
    put_text(text, "\n# TYPE ");
    put_text(text, name);
    put_text(text, " ");
    put_text(text, type);
    put_text(text, "\n");
}

void tram__metrics_name(struct metrics_text *text, const char *name, const char *suffix) {
    put_text(text, name);
    put_text(text, suffix);
    text->labelled = false;
}

void tram__metrics_label(struct metrics_text *text, const char *label, const char *value) {
    put_text(text, text->labelled ? "," : "{");
    text->labelled = true;
    put_text(text, label);
    put_text(text, "=\"");
    put_escaped(text, value, true);
    put_text(text, "\"");
}

void tram__metrics_label_number(struct metrics_text *text, const char *label, uint64_t value) {
    char number[24];
    snprintf(number, sizeof number, "%" PRIu64, value);
    tram__metrics_label(text, label, number);
}

static void value(struct metrics_text *text, const char *string) {
    put_text(text, text->labelled ? "} " : " ");
    put_text(text, string);
    put_text(text, "\n");
}

void tram__metrics_count(struct metrics_text *text, uint64_t count) {
    char number[24];
    snprintf(number, sizeof number, "%" PRIu64, count);
    value(text, number);
}

void tram__metrics_seconds(struct metrics_text *text, uint64_t ns) {
    char number[METRICS_SECONDS_SIZE];
    value(text, tram__metrics_seconds_text(ns, number));
}

const char *tram__metrics_seconds_text(uint64_t ns, char text[METRICS_SECONDS_SIZE]) {
    int length = snprintf(text, METRICS_SECONDS_SIZE, "%" PRIu64 ".%09" PRIu64, ns / 1000000000u, ns % 1000000000u);
    char *end = text + length;
    while (end[-1] == '0')
        end--;
    if (end[-1] == '.')
        end--;
    *end = '\0';
    return text;
}
