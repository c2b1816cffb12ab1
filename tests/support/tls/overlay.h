/* TLS in place of the codecs of support/layers.h: a group's setup and teardown. */
#ifndef TRAM_TESTS_SUPPORT_TLS_OVERLAY_H
#define TRAM_TESTS_SUPPORT_TLS_OVERLAY_H

#include "support/layers.h"

int tls_overlay_setup(void **state);
int tls_overlay_teardown(void **state);

/* A client's or a server's layer on top of a transport; the configs are those of support/tls/ends.h. */
int tls_push(tram_transport *transport, bool server);

#endif
