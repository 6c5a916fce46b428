/* The floor that the resolver is measured against: the least a DNS server can do with a given UDP socket.
 *
 * Argument: descriptor of a bound socket. Every datagram is answered with its own question and one fixed A record. */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    static const unsigned char record[16] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 1};
    unsigned char packet[2048];
    if (argc != 2) return 2;
    int fd = atoi(argv[1]);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    for (;;) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        ssize_t got = recvfrom(fd, packet, 512, 0, (struct sockaddr *)&peer, &size);
        if (got < 12) continue;
        packet[2] |= 0x80;
        packet[3] = 0x80;
        packet[7] = 1;
        memcpy(packet + got, record, sizeof record);
        sendto(fd, packet, got + sizeof record, 0, (struct sockaddr *)&peer, size);
    }
}
