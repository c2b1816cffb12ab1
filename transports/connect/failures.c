#include "transports/connect/failures.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/limits.h"

struct failure {
    struct failure *next;
    size_t attempt;
    tram_error error;
    char text[TRAM_ERROR_TEXT];
};

void tram__failures_add(struct failures *failures, size_t attempt, int code, const char *operation, const char *format,
                        ...) {
    struct failure *failure = memory_get(failures->allocator, sizeof *failure);
    if (!failure) {
        failures->out_of_memory = true;
        return;
    }
    va_list list;
    va_start(list, format);
    vsnprintf(failure->text, sizeof failure->text, format, list);
    va_end(list);
    failure->error = (tram_error){.code = code, .operation = operation, .detail = failure->text};
    failure->attempt = attempt;
    struct failure **place = &failures->first;
    while (*place && (*place)->attempt <= attempt)
        place = &(*place)->next;
    failure->next = *place;
    *place = failure;
}

void tram__failures_add_address(struct failures *failures, size_t attempt, int code, const char *operation,
                                const tram_socket_address *address) {
    char text[TRAM_ADDRESS_TEXT_SIZE];
    tram__failures_add(failures, attempt, code, operation, "%s %s: %s", operation,
                       tram_socket_address_text(address, text, sizeof text), tram_error_text(code));
}

static bool all_the_same(const struct failure *first) {
    for (const struct failure *failure = first->next; failure; failure = failure->next)
        if (failure->error.code != first->error.code || strcmp(failure->text, first->text) != 0)
            return false;
    return true;
}

/* One error that lists the texts of all; as it was where memory is short. */
static void list_all(const struct failures *failures, bool all_errors, struct combined_error *combined) {
    static const char head[] = "all attempts failed: ";
    unsigned count = 0;
    size_t text_size = sizeof head;
    for (const struct failure *failure = failures->first; failure; failure = failure->next, count++)
        text_size += strlen(failure->text) + 2;
    size_t causes_size = count * sizeof(tram_error *);
    char *block = memory_get(failures->allocator, causes_size + text_size);
    if (!block)
        return;
    const tram_error **causes = (const tram_error **)(void *)block;
    char *text = block + causes_size, *end = stpcpy(text, head);
    for (const struct failure *failure = failures->first; failure; failure = failure->next) {
        *causes++ = &failure->error;
        end = stpcpy(stpcpy(end, failure->text), failure->next ? "; " : "");
    }
    combined->block = block;
    combined->block_size = causes_size + text_size;
    combined->error = (tram_error){.code = TRAM_EMULTIPLE, .operation = "connect", .detail = text};
    if (all_errors) {
        combined->error.causes = (const tram_error *const *)(void *)block;
        combined->error.cause_count = count;
    }
}

void tram__failures_combine(const struct failures *failures, bool all_errors, struct combined_error *ret_combined) {
    *ret_combined = (struct combined_error){.error = {.code = -ENOMEM, .operation = "connect"}};
    if (!failures->first || failures->out_of_memory)
        return;
    if (!all_errors && all_the_same(failures->first))
        ret_combined->error = failures->first->error;
    else
        list_all(failures, all_errors, ret_combined);
}

void tram__failures_combined_free(const tram_allocator *allocator, struct combined_error *combined) {
    memory_put(allocator, combined->block, combined->block_size);
}

void tram__failures_clear(struct failures *failures) {
    while (failures->first) {
        struct failure *failure = failures->first;
        failures->first = failure->next;
        memory_put(failures->allocator, failure, sizeof *failure);
    }
    failures->out_of_memory = false;
}
