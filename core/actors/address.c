#include <tram/address.h>

#include <stdio.h>

const char *tram_address_text(tram_address address, char *text, size_t size) {
    snprintf(text, size, "%u.%u/%u.%u", address.loop, address.loop_generation, address.slot, address.generation);
    return text;
}
