/*
 * The error queue of a socket: errors of the network with IP_RECVERR, and transmit timestamps. As long as it holds
 * something the kernel reports an error of the socket; a full one leaves no room for what is received.
 */
#ifndef TRAM_CORE_BACKEND_ERROR_QUEUE_H
#define TRAM_CORE_BACKEND_ERROR_QUEUE_H

#include "core/loop/io.h"

/*
 * Takes what the queue holds, up to the first error of the network; false: it held nothing, or there is none. The
 * kernel gives each of these errors to a receive or send as well, the next one when the one before was taken from here:
 * so each is told once.
 */
bool tram__error_queue_take(struct io *io);

#endif
