/* Load for networks.py. One binary serves inside a container and asks from outside or from another container.
 *
 *   netload serve PORT              first byte of a connection: 's' swallow all, answer a byte at its end; 'k' answer a byte, close
 *   netload stream HOST PORT SECS   MB/s into one connection
 *   netload connect HOST PORT SECS  connections/s: opened, one byte each way, closed
 *   netload lookup NAME SECS        look-ups/s of NAME's address at 127.0.0.11, one after the other
 *
 * Prints one number.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 << 10 };
static unsigned char chunk[CHUNK];

static double clock_now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

static void must(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static int open_to(const char *host, int port, int type)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 5};
    int fd = socket(AF_INET, type, 0);
    must(inet_pton(AF_INET, host, &where.sin_addr) == 1, host);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    must(connect(fd, (struct sockaddr *)&where, sizeof where) == 0, "connect");
    return fd;
}

static void serve(int port)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1, door = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGCHLD, SIG_IGN);
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    must(bind(door, (struct sockaddr *)&where, sizeof where) == 0 && listen(door, 4096) == 0, "listen");
    for (;;) {
        int fd = accept(door, NULL, NULL);
        unsigned char wish = 0;
        if (fd < 0)
            continue;
        if (read(fd, &wish, 1) == 1 && wish == 's' && fork() == 0) {
            while (read(fd, chunk, CHUNK) > 0)
                ;
            _exit(write(fd, "s", 1) != 1);
        }
        if (wish == 'k' && write(fd, "k", 1) != 1)
            perror("write");
        close(fd);
    }
}

static double stream(const char *host, int port, double seconds)
{
    int fd = open_to(host, port, SOCK_STREAM);
    double begun = clock_now(), sent = 0;
    must(write(fd, "s", 1) == 1, "write");
    while (clock_now() - begun < seconds) {
        ssize_t size = write(fd, chunk, CHUNK);
        must(size > 0, "write");
        sent += size;
    }
    shutdown(fd, SHUT_WR);
    must(read(fd, chunk, 1) == 1, "read"); /* all of it has arrived */
    return sent / 1e6 / (clock_now() - begun);
}

static double connections(const char *host, int port, double seconds)
{
    double begun = clock_now(), made = 0;
    while (clock_now() - begun < seconds) {
        int fd = open_to(host, port, SOCK_STREAM);
        must(write(fd, "k", 1) == 1 && read(fd, chunk, 1) == 1, "one byte each way");
        close(fd);
        made++;
    }
    return made / (clock_now() - begun);
}

static double lookups(const char *name, double seconds)
{
    unsigned char question[300] = {0, 0, 1, 0, 0, 1}, answer[600];
    size_t end = 12;
    for (const char *label = name; *label; end++) {
        size_t size = strcspn(label, ".");
        must(end + size + 6 < sizeof question, "name");
        question[end] = size;
        memcpy(question + end + 1, label, size);
        end += size;
        label += size + (label[size] == '.');
    }
    memcpy(question + end, "\0\0\1\0\1", 5);
    end += 5;
    int fd = open_to("127.0.0.11", 53, SOCK_DGRAM);
    double begun = clock_now(), done = 0;
    while (clock_now() - begun < seconds) {
        uint16_t number = (uint16_t)done;
        memcpy(question, &number, 2);
        must(send(fd, question, end, 0) == (ssize_t)end, "send");
        ssize_t size = recv(fd, answer, sizeof answer, 0);
        must(size > 12 && !memcmp(answer, question, 2) && !(answer[3] & 15) && answer[7], "no answer");
        done++;
    }
    return done / (clock_now() - begun);
}

int main(int count, char **words)
{
    const char *work = count > 2 ? words[1] : "";
    double found = -1;
    if (!strcmp(work, "serve"))
        serve(atoi(words[2]));
    else if (!strcmp(work, "stream") && count == 5)
        found = stream(words[2], atoi(words[3]), atof(words[4]));
    else if (!strcmp(work, "connect") && count == 5)
        found = connections(words[2], atoi(words[3]), atof(words[4]));
    else if (!strcmp(work, "lookup") && count == 4)
        found = lookups(words[2], atof(words[3]));
    else
        return 2;
    printf("%.1f\n", found);
    return 0;
}
