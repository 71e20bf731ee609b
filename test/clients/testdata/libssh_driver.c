/* Does with libssh what the tests ask for; see driver_test.go. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h> /* for ssh_send_keepalive */
#include <libssh/sftp.h>

#define CHUNK 16384

static ssh_session session;
static char *self;
static int asking; /* for signs of life */
static volatile sig_atomic_t resized;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, session ? ssh_get_error(session) : strerror(errno));
    exit(1);
}

static const char *need(const char *name)
{
    const char *value = getenv(name);
    if (!value || !*value) {
        fprintf(stderr, "%s is not set\n", name);
        exit(1);
    }
    return value;
}

static void option(enum ssh_options_e o, const void *value)
{
    if (ssh_options_set(session, o, value) != SSH_OK)
        fail("option");
}

/* aim says where to go. End to end, the proxy is this program, connected to the
 * agent by way of the gateway. */
static void aim(void)
{
    const char *jump = getenv("SSH_JUMP");
    if (jump && *jump) {
        char proxy[1024];
        snprintf(proxy, sizeof proxy, "env SSH_JUMP= %s local %s 22", self, jump);
        option(SSH_OPTIONS_HOST, jump);
        option(SSH_OPTIONS_USER, jump);
        option(SSH_OPTIONS_PROXYCOMMAND, proxy);
        return;
    }
    option(SSH_OPTIONS_HOST, need("SSH_HOST"));
    option(SSH_OPTIONS_PORT_STR, need("SSH_PORT"));
    option(SSH_OPTIONS_USER, need("SSH_USER"));
}

static void log_newkeys(int priority, const char *function, const char *text, void *data)
{
    (void)priority, (void)data;
    if (strcmp(function, "ssh_packet_newkeys") == 0)
        fprintf(stderr, "%s\n", text);
}

static void connect_task(int rekey)
{
    int no = 0;
    long timeout = 30;
    uint64_t bytes = 1 << 20;
    ssh_key key;

    session = ssh_new();
    option(SSH_OPTIONS_PROCESS_CONFIG, &no);
    aim();
    option(SSH_OPTIONS_TIMEOUT, &timeout);
    option(SSH_OPTIONS_KNOWNHOSTS, need("SSH_KNOWN_HOSTS"));
    option(SSH_OPTIONS_GLOBAL_KNOWNHOSTS, "/dev/null");
    if (rekey) {
        option(SSH_OPTIONS_REKEY_DATA, &bytes);
        ssh_set_log_level(SSH_LOG_TRACE);
        ssh_set_log_callback(log_newkeys);
    }
    if (ssh_connect(session) != SSH_OK)
        fail("connect");
    if (ssh_session_is_known_server(session) != SSH_KNOWN_HOSTS_OK)
        fail("the host key is not the one in known_hosts");
    if (ssh_pki_import_privkey_file(need("SSH_KEY"), NULL, NULL, NULL, &key) != SSH_OK)
        fail("key");
    /* The manual's first step. By its answer the library has also read which
     * signatures the server takes, without which it would not use an RSA key. */
    if (ssh_userauth_none(session, NULL) == SSH_AUTH_ERROR)
        fail("sign in");
    if (ssh_userauth_publickey(session, NULL, key) != SSH_AUTH_SUCCESS)
        fail("sign in");
    ssh_key_free(key);
}

/* A pair is a channel and the descriptors that it is joined to. */
struct pair {
    ssh_channel channel;
    int in, out, err;
    int in_done, out_done;
};

static struct pair pairs[16];
static int npairs;

static void join(ssh_channel channel, int in, int out, int err)
{
    if (!channel || npairs == sizeof pairs / sizeof *pairs)
        fail("channel");
    pairs[npairs++] = (struct pair){.channel = channel, .in = in, .out = out, .err = err};
}

static void write_all(int fd, const char *buf, int n)
{
    while (n > 0) {
        int k = write(fd, buf, n);
        if (k < 0)
            exit(1);
        buf += k;
        n -= k;
    }
}

/* take writes what a channel has for a descriptor, and returns how much. */
static int take(struct pair *p, int is_stderr, int fd)
{
    char buf[CHUNK];
    int n = ssh_channel_read_nonblocking(p->channel, buf, sizeof buf, is_stderr);
    if (n > 0)
        write_all(fd, buf, n);
    return n > 0 ? n : 0;
}

/* give sends what a descriptor has, as far as the channel's window goes: what
 * comes in has to be read while there is none. */
static int give(struct pair *p)
{
    char buf[CHUNK];
    struct pollfd fd = {.fd = p->in, .events = POLLIN};
    uint32_t window = ssh_channel_window_size(p->channel);
    int n;

    if (p->in_done || window == 0 || poll(&fd, 1, 0) <= 0)
        return 0;
    n = read(p->in, buf, window < sizeof buf ? window : sizeof buf);
    if (n > 0) {
        if (ssh_channel_write(p->channel, buf, n) != n)
            fail("write");
        return n;
    }
    p->in_done = 1;
    ssh_channel_send_eof(p->channel);
    return 1;
}

/* pump moves what there is to move, and returns whether that was anything. */
static int pump(struct pair *p)
{
    int moved = take(p, 0, p->out) + take(p, 1, p->err) + give(p);
    if (!moved && !p->out_done && ssh_channel_is_eof(p->channel)) {
        p->out_done = 1;
        if (p->out == p->in)
            shutdown(p->out, SHUT_WR);
    }
    return moved;
}

static void idle(void)
{
    static time_t asked;
    struct pollfd fds[1 + sizeof pairs / sizeof *pairs] = {{.fd = ssh_get_fd(session), .events = POLLIN}};
    int n = 1;

    for (int i = 0; i < npairs; i++)
        if (!pairs[i].in_done && ssh_channel_window_size(pairs[i].channel))
            fds[n++] = (struct pollfd){.fd = pairs[i].in, .events = POLLIN};
    poll(fds, n, 50); /* the library may hold something already */
    if (asking && time(NULL) != asked) {
        asked = time(NULL);
        ssh_send_keepalive(session);
    }
}

/* run serves all pairs until the first has ended. */
static void run(int both)
{
    struct winsize size;
    while (!pairs[0].out_done || (both && !pairs[0].in_done)) {
        int moved = 0;
        for (int i = 0; i < npairs; i++) {
            moved += pump(&pairs[i]);
            if (i > 0 && pairs[i].in_done && pairs[i].out_done && ssh_channel_is_open(pairs[i].channel))
                ssh_channel_close(pairs[i].channel);
        }
        if (resized) {
            resized = 0;
            ioctl(0, TIOCGWINSZ, &size);
            ssh_channel_change_pty_size(pairs[0].channel, size.ws_col, size.ws_row);
        }
        if (!ssh_is_connected(session))
            fail("connection");
        if (!moved)
            idle();
    }
}

static ssh_channel open_session(void)
{
    ssh_channel channel = ssh_channel_new(session);
    if (!channel || ssh_channel_open_session(channel) != SSH_OK)
        fail("session");
    return channel;
}

static int finish(ssh_channel channel)
{
    join(channel, 0, 1, 2);
    run(0);
    return ssh_channel_get_exit_status(channel);
}

static int exec_on(ssh_channel channel, const char *command)
{
    if (ssh_channel_request_exec(channel, command) != SSH_OK)
        fail("exec");
    return finish(channel);
}

static void on_resize(int signal)
{
    (void)signal;
    resized = 1;
}

static int shell(void)
{
    ssh_channel channel = open_session();
    struct winsize size;
    struct termios raw;

    ioctl(0, TIOCGWINSZ, &size);
    if (ssh_channel_request_pty_size(channel, "xterm", size.ws_col, size.ws_row) != SSH_OK)
        fail("pty");
    tcgetattr(0, &raw);
    cfmakeraw(&raw);
    tcsetattr(0, TCSANOW, &raw);
    signal(SIGWINCH, on_resize);
    if (ssh_channel_request_shell(channel) != SSH_OK)
        fail("shell");
    return finish(channel);
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail(path);
    return fd;
}

static ssh_channel accept_channel(ssh_session s, const char *path)
{
    ssh_channel channel = ssh_channel_new(s);
    int fd = connect_unix(path);
    join(channel, fd, fd, 2);
    return channel;
}

static ssh_channel on_agent(ssh_session s, void *data)
{
    (void)data;
    return accept_channel(s, need("SSH_AUTH_SOCK"));
}

static ssh_channel on_x11(ssh_session s, const char *origin, int port, void *data)
{
    char path[100];
    (void)origin, (void)port, (void)data;
    snprintf(path, sizeof path, "/tmp/.X11-unix/X%s", need("DISPLAY") + 1);
    return accept_channel(s, path);
}

static struct ssh_callbacks_struct callbacks = {
    .channel_open_request_auth_agent_function = on_agent,
    .channel_open_request_x11_function = on_x11,
};

/* forwarding runs a command whose channels of its own go to the guest's agent or
 * display. Those come after the session's, which is pairs[0]. */
static int forwarding(const char *command, int x11)
{
    ssh_channel channel = open_session();
    ssh_callbacks_init(&callbacks);
    ssh_set_callbacks(session, &callbacks);
    join(channel, 0, 1, 2);
    /* The cookie is the display's own, so there is none to replace on the way. */
    if (x11 ? ssh_channel_request_x11(channel, 0, NULL, need("COOKIE"), 0) : ssh_channel_request_auth_agent(channel))
        fail("forwarding");
    if (ssh_channel_request_exec(channel, command) != SSH_OK)
        fail("exec");
    run(0);
    return ssh_channel_get_exit_status(channel);
}

static int open_file(const char *path, int flags, off_t *size)
{
    struct stat s;
    int fd = open(path, flags, 0600);
    if (fd < 0 || fstat(fd, &s) != 0) {
        perror(path);
        exit(1);
    }
    if (size)
        *size = s.st_size;
    return fd;
}

static sftp_file open_remote(const char *path, int flags)
{
    sftp_session sftp = sftp_new(session);
    sftp_file file;
    if (!sftp || sftp_init(sftp) != SSH_OK || !(file = sftp_open(sftp, path, flags, 0600)))
        fail("sftp");
    return file;
}

static int put(const char *from, const char *to)
{
    char buf[CHUNK];
    int n, fd = open_file(from, O_RDONLY, NULL);
    sftp_file file = open_remote(to, O_WRONLY | O_CREAT | O_TRUNC);
    while ((n = read(fd, buf, sizeof buf)) > 0)
        if (sftp_write(file, buf, n) != n)
            fail("sftp write");
    return sftp_close(file);
}

static int get(const char *from, const char *to)
{
    char buf[CHUNK];
    int n, fd = open_file(to, O_WRONLY | O_CREAT | O_TRUNC, NULL);
    sftp_file file = open_remote(from, O_RDONLY);
    while ((n = sftp_read(file, buf, sizeof buf)) > 0)
        write_all(fd, buf, n);
    return n < 0 ? 1 : sftp_close(file);
}

static int scp_put(const char *from, const char *to)
{
    char buf[CHUNK];
    off_t size;
    int n, fd = open_file(from, O_RDONLY, &size);
    ssh_scp scp = ssh_scp_new(session, SSH_SCP_WRITE, to);
    if (!scp || ssh_scp_init(scp) != SSH_OK || ssh_scp_push_file64(scp, "sent", size, 0600) != SSH_OK)
        fail("scp");
    while ((n = read(fd, buf, sizeof buf)) > 0)
        if (ssh_scp_write(scp, buf, n) != SSH_OK)
            fail("scp write");
    return ssh_scp_close(scp) == SSH_OK ? 0 : 1;
}

static int scp_get(const char *from, const char *to)
{
    char buf[CHUNK];
    int fd = open_file(to, O_WRONLY | O_CREAT | O_TRUNC, NULL);
    ssh_scp scp = ssh_scp_new(session, SSH_SCP_READ, from);
    if (!scp || ssh_scp_init(scp) != SSH_OK || ssh_scp_pull_request(scp) != SSH_SCP_REQUEST_NEWFILE)
        fail("scp");
    uint64_t left = ssh_scp_request_get_size64(scp);
    ssh_scp_accept_request(scp);
    while (left > 0) {
        int n = ssh_scp_read(scp, buf, sizeof buf);
        if (n <= 0)
            fail("scp read");
        write_all(fd, buf, n);
        left -= n;
    }
    return ssh_scp_pull_request(scp) == SSH_SCP_REQUEST_EOF ? 0 : 1;
}

static int pipe_to(ssh_channel channel, int opened)
{
    if (opened != SSH_OK)
        fail("channel");
    join(channel, 0, 1, 2);
    run(0);
    return 0;
}

static int connect_tcp(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int fd;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        fail("resolve");
    fd = socket(found->ai_family, found->ai_socktype, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen) != 0)
        fail("connect to the target");
    freeaddrinfo(found);
    return fd;
}

static _Noreturn void forward_remote(const char *listen, const char *host, const char *port)
{
    if (ssh_channel_listen_forward(session, "127.0.0.1", atoi(listen), NULL) != SSH_OK)
        fail("listen");
    puts("ready");
    fflush(stdout);
    for (;;) {
        int on, fd;
        ssh_channel channel = ssh_channel_accept_forward(session, 60000, &on);
        if (!channel)
            fail("accept");
        fd = connect_tcp(host, port);
        npairs = 0;
        join(channel, fd, fd, 2);
        run(1);
        ssh_channel_close(channel);
        close(fd);
    }
}

int main(int argc, char **argv)
{
    char *op = argv[1], **a = argv + 2;
    (void)argc;
    self = argv[0];
    if (strcmp(op, "version") == 0)
        return puts(ssh_version(0)) < 0;
    signal(SIGPIPE, SIG_IGN);
    asking = strcmp(op, "keepalive") == 0;
    connect_task(strcmp(op, "rekey") == 0);
    if (strcmp(op, "exec") == 0 || strcmp(op, "keepalive") == 0 || strcmp(op, "rekey") == 0)
        return exec_on(open_session(), a[0]);
    if (strcmp(op, "agent") == 0 || strcmp(op, "x11") == 0)
        return forwarding(a[0], *op == 'x');
    if (strcmp(op, "shell") == 0)
        return shell();
    if (strcmp(op, "put") == 0)
        return put(a[0], a[1]);
    if (strcmp(op, "get") == 0)
        return get(a[0], a[1]);
    if (strcmp(op, "scp-put") == 0)
        return scp_put(a[0], a[1]);
    if (strcmp(op, "scp-get") == 0)
        return scp_get(a[0], a[1]);
    if (strcmp(op, "remote") == 0)
        forward_remote(a[0], a[1], a[2]);
    ssh_channel channel = ssh_channel_new(session);
    if (strcmp(op, "local") == 0)
        return pipe_to(channel, ssh_channel_open_forward(channel, a[0], atoi(a[1]), "127.0.0.1", 0));
    if (strcmp(op, "unix") == 0)
        return pipe_to(channel, ssh_channel_open_forward_unix(channel, a[0], "127.0.0.1", 0));
    fprintf(stderr, "unknown operation %s\n", op);
    return 1;
}
