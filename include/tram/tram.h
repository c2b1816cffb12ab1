/* All of tram. */
#ifndef TRAM_H
#define TRAM_H

#include <tram/buffer.h>
#include <tram/connection.h>
#include <tram/datagram.h>
#include <tram/error.h>
#include <tram/executor.h>
#include <tram/future.h>
#include <tram/loop.h>
#include <tram/memory.h>
#include <tram/protocol.h>
#include <tram/resolver.h>
#include <tram/runtime.h>
#include <tram/server.h>
#include <tram/signal.h>
#include <tram/stats.h>
#include <tram/transport.h>
#include <tram/version.h>

#endif
