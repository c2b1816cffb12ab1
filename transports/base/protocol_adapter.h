/*
 * The adapter between transports and protocols: the only place where a protocol's callback is called and its answer
 * judged (P-14 to P-17).
 */
#ifndef TRAM_TRANSPORTS_BASE_PROTOCOL_ADAPTER_H
#define TRAM_TRANSPORTS_BASE_PROTOCOL_ADAPTER_H

#include "transports/base/released.h"
#include "transports/base/types.h"

/*
 * Calls a factory: a protocol, or a negative code. A factory that returns success without a protocol, or with one
 * that has no ops, is TRAM_ETYPE. The loop has its state: whoever is going to make protocols opens it first.
 */
int tram__protocol_make(tram_loop *loop, tram_protocol_factory factory, void *arg, tram_protocol **ret_protocol);

void tram__protocol_connection_made(tram_transport *transport);
void tram__protocol_connection_lost(tram_transport *transport, const tram_error *error);
/*
 * A negative return of the next four is a failure that ends the connection (P-15); it was reported where it has to be,
 * and stands in transport->end: go on with tram__transport_fail().
 */
int tram__protocol_received(tram_transport *transport, const void *data, size_t size);
int tram__protocol_get_buffer(tram_transport *transport, ptrdiff_t hint, void **ret_memory, size_t *ret_size);
int tram__protocol_buffer_updated(tram_transport *transport, size_t size);
/* The callback of tram_transport_call_later() failed: the connection ends with that. */
int tram__protocol_timer_failed(tram_transport *transport, int status);
/* 0: close; positive: stay half open. */
int tram__protocol_eof(tram_transport *transport);
/* A negative return was reported. */
int tram__protocol_closing(tram_transport *transport, uint64_t deadline_ns);
/* Of subprocesses: whatever fails is reported and changes nothing. */
void tram__protocol_pipe_data_received(tram_transport *transport, int fd, const void *data, size_t size);
void tram__protocol_pipe_connection_lost(tram_transport *transport, int fd, const tram_error *error);
void tram__protocol_process_exited(tram_transport *transport);

void tram__protocol_datagram_received(tram_transport *transport, const void *data, size_t size,
                                      const tram_socket_address *address);
void tram__protocol_error_received(tram_transport *transport, const tram_error *error);
/* Of a protocol that has it. */
void tram__protocol_message_received(tram_transport *transport, tram_message *message);
void tram__protocol_pause_writing(tram_transport *transport);
void tram__protocol_resume_writing(tram_transport *transport);

#endif
