/* The only file of an image that has no shell, no libraries and no other program. Compiled by images.py.
 *
 *   bare CODE WORD...      prints its arguments to stdout, one a line, a remark to stderr, and exits with CODE
 *   bare sleep SECONDS     sleeps, then exits with 0; ends at once, with 143, when it gets SIGTERM
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The first process of a container gets only signals for which it has a handler. */
static void end(int signal) { _exit(128 + signal); }

int main(int argc, char **argv) {
    signal(SIGTERM, end);
    for (int i = 1; i < argc; i++) puts(argv[i]);
    fflush(stdout);
    fprintf(stderr, "bare: %d arguments\n", argc - 1);
    if (argc > 2 && !strcmp(argv[1], "sleep")) {
        double seconds = atof(argv[2]);
        struct timespec rest = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
        nanosleep(&rest, NULL);
        return 0;
    }
    return argc > 1 ? atoi(argv[1]) : 0;
}
