/* Descriptors that come and go with the bytes of a Unix stream. */
#ifndef TRAM_TRANSPORTS_STREAM_DESCRIPTORS_H
#define TRAM_TRANSPORTS_STREAM_DESCRIPTORS_H

#include "core/loop/io.h"

/* What the poller asks of a stream transport with IO_DESCRIPTORS. */
extern const struct io_descriptor_kind tram__stream_descriptors;

#endif
