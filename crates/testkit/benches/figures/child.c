/* The child under every supervisor: as small as an agent can be.
 *
 * It says on its ready descriptor that it is ready, where it was given one, and notes the time of
 * that first byte; where it wasn't, the time at which it would have. Then it tells the harness its
 * number and that time, over the Unix socket named by its first argument, and waits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	const char *ready = getenv("MAINSTAY_READY_FD");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timespec now;
	char text[64];
	int length, harness;

	if (ready && write(atoi(ready), "\n", 1) != 1)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (count < 2)
		return 2;
	strncpy(address.sun_path, arguments[1], sizeof(address.sun_path) - 1);
	harness = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(harness, (struct sockaddr *)&address, sizeof(address)) != 0)
		return 3;
	length = snprintf(text, sizeof(text), "%d %lld %ld", getpid(), (long long)now.tv_sec, now.tv_nsec);
	if (write(harness, text, length) != length)
		return 4;
	for (;;)
		pause();
}
