using Tmds.Linux;

namespace Vmm.Interop.Libc;

/// <summary>The controlling terminal: raw mode, reads that can be called off, whole writes. Answers: 0 or a count, or -errno.</summary>
internal static unsafe class TerminalCalls
{
    internal static bool IsTerminal(int fd) => LibC.isatty(fd) == 1;

    /// <summary>
    /// Keeps the settings, then switches to raw mode as cfmakeraw(3) does; output processing stays off too: the guest sends its own CR.
    /// </summary>
    internal static int EnterRaw(int fd, out termios saved)
    {
        termios settings = default;
        int answer = Answer.Of(LibC.tcgetattr(fd, &settings));
        saved = settings;
        if (answer < 0)
        {
            return answer;
        }

        settings.c_iflag &= ~(uint)(LibC.IGNBRK | LibC.BRKINT | LibC.PARMRK | LibC.ISTRIP | LibC.INLCR | LibC.IGNCR | LibC.ICRNL
            | LibC.IXON);
        settings.c_oflag &= ~(uint)LibC.OPOST;
        settings.c_lflag &= ~(uint)(LibC.ECHO | LibC.ECHONL | LibC.ICANON | LibC.ISIG | LibC.IEXTEN);
        settings.c_cflag = (settings.c_cflag & ~(uint)(LibC.CSIZE | LibC.PARENB)) | (uint)LibC.CS8;
        settings.c_cc[LibC.VMIN] = 1;
        settings.c_cc[LibC.VTIME] = 0;
        return Answer.Of(LibC.tcsetattr(fd, (int)LibC.TCSANOW, &settings));
    }

    internal static int Restore(int fd, termios saved) => Answer.Of(LibC.tcsetattr(fd, (int)LibC.TCSANOW, &saved));

    /// <summary>Columns and rows (ioctl_tty(2), TIOCGWINSZ); null: no terminal, or one without a size.</summary>
    internal static (ushort Columns, ushort Rows)? Size(int fd)
    {
        const uint TiocgWinSz = 0x5413;
        ushort* size = stackalloc ushort[4]; // struct winsize: rows, columns, and pixels that nobody fills in
        return FileCalls.Ioctl(fd, TiocgWinSz, size) < 0 || size[0] == 0 || size[1] == 0 ? null : (size[1], size[0]);
    }

    /// <summary>Reads; 0 at the end of input or once <paramref name="stop"/> is readable.</summary>
    internal static int Read(int fd, FileDescriptorHandle stop, Span<byte> buffer)
    {
        using DescriptorLease stopFd = new(stop);
        Span<PollEntry> polls = [new PollEntry(fd, read: true), new PollEntry(stopFd.Number, read: true)];
        while (true)
        {
            int ready = PollCalls.Wait(polls, -1);
            if (ready < 0)
            {
                return ready;
            }

            if (ready == 0)
            {
                continue; // a signal
            }

            if (polls[1].Readable)
            {
                return 0;
            }

            long got;
            fixed (byte* first = buffer)
            {
                got = Answer.Of(LibC.read(fd, first, buffer.Length));
            }

            if (got is not (-Errno.EINTR or -Errno.EAGAIN))
            {
                return (int)got;
            }
        }
    }

    /// <summary>Writes everything, waiting for a slow reader.</summary>
    internal static int Write(int fd, ReadOnlySpan<byte> bytes)
    {
        Span<PollEntry> room = [new PollEntry(fd, read: false, write: true)];
        fixed (byte* first = bytes)
        {
            int done = 0;
            while (done < bytes.Length)
            {
                long written = Answer.Of(LibC.write(fd, first + done, bytes.Length - done));
                if (written == -Errno.EAGAIN)
                {
                    _ = PollCalls.Wait(room, -1);
                }
                else if (written is < 0 and not -Errno.EINTR)
                {
                    return (int)written;
                }

                done += (int)Math.Max(written, 0);
            }
        }

        return 0;
    }
}
