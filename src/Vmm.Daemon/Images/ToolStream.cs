using System.ComponentModel;
using System.Diagnostics;

namespace Vmm.Daemon.Images;

/// <summary>
/// What a program makes of a stream, from its standard input to its standard output. It opens no file, has no environment, and as root it
/// runs as nobody: what it reads is a stranger's. Disposing ends it.
/// </summary>
internal sealed class ToolStream : Stream
{
    private const int MostComplaint = 300;

    private readonly Process _process;
    private readonly Task _feed;
    private readonly Task<string> _complaint;
    private readonly string _program;

    /// <param name="program">Whole path of the program.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="package">The Debian package that has it.</param>
    /// <param name="input">What it reads; it stays the caller's.</param>
    /// <exception cref="InvalidDataException">It cannot be started.</exception>
    internal ToolStream(string program, string[] arguments, string package, Stream input)
    {
        _program = Path.GetFileName(program);
        ProcessStartInfo start = new(program, arguments)
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = "/",
        };
        start.Environment.Clear();
        if (Environment.IsPrivilegedProcess)
        {
            start.UserName = "nobody";
        }

        try
        {
            _process = Process.Start(start) ?? throw new Win32Exception("it did not start");
        }
        catch (Win32Exception cause)
        {
            throw new InvalidDataException($"{program} cannot be started ({cause.Message}): install the package {package}", cause);
        }

        _feed = Task.Run(() => Feed(input));
        _complaint = Task.Run(Complaint);
    }

    /// <inheritdoc/>
    public override bool CanRead => true;

    /// <inheritdoc/>
    public override bool CanSeek => false;

    /// <inheritdoc/>
    public override bool CanWrite => false;

    /// <inheritdoc/>
    public override long Length => throw new NotSupportedException();

    /// <inheritdoc/>
    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <inheritdoc/>
    /// <exception cref="InvalidDataException">The program failed; the message is its own.</exception>
    public override int Read(Span<byte> buffer)
    {
        int read = _process.StandardOutput.BaseStream.Read(buffer);
        if (read == 0 && !buffer.IsEmpty)
        {
            _process.WaitForExit();
            if (_process.ExitCode != 0)
            {
                throw new InvalidDataException($"{_program}: {_complaint.GetAwaiter().GetResult()}");
            }

            _feed.GetAwaiter().GetResult(); // a source that could not be read is no end of it
        }

        return read;
    }

    /// <inheritdoc/>
    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    /// <inheritdoc/>
    public override void Flush()
    {
    }

    /// <inheritdoc/>
    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void SetLength(long value) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            try
            {
                _process.Kill();
            }
            catch (Exception cause) when (cause is InvalidOperationException or Win32Exception)
            {
                _ = cause; // it is over
            }

            _process.WaitForExit();
            Task.WhenAll(_feed, _complaint).ContinueWith(_ => { }, TaskScheduler.Default).GetAwaiter().GetResult();
            _process.Dispose();
        }

        base.Dispose(disposing);
    }

    // Ends when the program reads no more: its end of the pipe is closed then.
    private void Feed(Stream input)
    {
        byte[] buffer = new byte[128 << 10];
        try
        {
            using Stream pipe = _process.StandardInput.BaseStream;
            for (int read = input.Read(buffer); read > 0; read = input.Read(buffer))
            {
                pipe.Write(buffer, 0, read);
            }
        }
        catch (IOException cause) when (cause.InnerException is not Interop.KernelException)
        {
            _ = cause; // EPIPE: its exit code says why
        }
    }

    private string Complaint()
    {
        char[] text = new char[MostComplaint];
        int length = _process.StandardError.ReadBlock(text);
        while (_process.StandardError.Read(new char[1024]) > 0)
        {
            // the rest is let go, so that the program does not wait for a reader
        }

        return new string(text, 0, length).Trim() is { Length: > 0 } said
            ? new string([.. said.Select(c => char.IsControl(c) ? ' ' : c)])
            : "failed";
    }
}
