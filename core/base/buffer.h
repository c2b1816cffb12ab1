/* Shared buffers from the inside: many references at a time, by one step on the count that processors share. */
#ifndef TRAM_CORE_BASE_BUFFER_H
#define TRAM_CORE_BASE_BUFFER_H

#include <tram/buffer.h>

void tram__buffer_hold(tram_buffer *buffer, size_t references);
void tram__buffer_release(tram_buffer *buffer, size_t references);

#endif
