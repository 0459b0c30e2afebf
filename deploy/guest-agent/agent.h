/* What the parts of the guest agent share. */
#ifndef VMM_AGENT_H
#define VMM_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* An answer that is put together; `full` when it did not fit. */
struct text {
    char *at;
    size_t length, room;
    bool full;
};

void __attribute__((format(printf, 2, 3))) add(struct text *text, const char *format, ...);

/* {"v":1,"error":"..."}: what could not be done, of which file system, why. Each may be NULL. */
void add_error(struct text *text, const char *what, const char *path, const char *why);

/* A file below /proc or /sys, or below the folder that a test gives for them. */
FILE *open_under_root(const char *path);

/* freeze.c. An owner is a connection, by its number: a freeze ends with the connection that asked for it. */
const char *freeze_problem(void); /* why this process cannot freeze; NULL when it can */
void freeze_ask(int owner, unsigned seconds, struct text *answer);
void thaw_ask(int owner, struct text *answer);
void freeze_owner_gone(int owner);
int freeze_watched(void); /* a file that is readable when freeze_watch_over has something to do; -1 when nothing is frozen */
void freeze_watch_over(void);

enum { MOST_SECONDS = 60 };

#endif
