/* Unix sockets: packets that carry descriptors (socket.c), and byte streams (unixstream.c). */
#ifndef VMMSHIM_SOCKET_H
#define VMMSHIM_SOCKET_H

#include "vmmshim.h"

#define VMM_MAX_FDS 128

struct sockaddr_un;

/* 0, or ENAMETOOLONG. */
int vmm_unix_address(const char *path, struct sockaddr_un *address);

VMM_API intptr_t vmm_stream_listen(const char *path, int32_t backlog, int32_t *err);
VMM_API intptr_t vmm_stream_connect(const char *path, int32_t *err);
VMM_API intptr_t vmm_stream_connect_nofollow(const char *path, int32_t *err);
VMM_API intptr_t vmm_stream_accept(intptr_t listener, int32_t *err);
VMM_API int32_t vmm_stream_send(intptr_t fd, const void *bytes, int32_t length);
VMM_API int32_t vmm_stream_receive(intptr_t fd, void *bytes, int32_t length, int32_t peek);
VMM_API int32_t vmm_stream_shutdown(intptr_t fd, int32_t how);

VMM_API int32_t vmm_socket_pair(int32_t packets, int32_t *fds);
VMM_API intptr_t vmm_socket_bind(const char *path, int32_t *err);
VMM_API int32_t vmm_socket_listen(intptr_t fd, int32_t backlog);
VMM_API intptr_t vmm_socket_accept(intptr_t fd, int32_t *err);
VMM_API intptr_t vmm_socket_connect(const char *path, int32_t *err);
VMM_API int32_t vmm_socket_peer(intptr_t fd, int32_t *pid, uint32_t *uid, uint32_t *gid);
VMM_API int32_t vmm_socket_send(intptr_t fd, const void *bytes, int32_t length, const int32_t *fds, int32_t count, int32_t timeout_ms);
VMM_API int32_t vmm_socket_receive(intptr_t fd, void *bytes, int32_t capacity, int32_t *fds, int32_t most, int32_t *count);
VMM_API int32_t vmm_poll(void *polls, int32_t count, int64_t timeout_us);

#endif
