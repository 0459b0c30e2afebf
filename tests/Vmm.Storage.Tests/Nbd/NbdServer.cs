using System.Diagnostics;
using Vmm.Interop;
using Vmm.Storage.Nbd;

namespace Vmm.Storage.Tests.Nbd;

/// <summary>A real NBD server on a unix socket: qemu-nbd or nbdkit.</summary>
internal sealed class NbdServer : IDisposable
{
    private readonly string _program;
    private readonly string[] _arguments;
    private readonly bool _ownsSocket;
    private readonly ManualResetEventSlim _over = new();
    private Process? _process;
    private Task<string> _errors = Task.FromResult("");

    private NbdServer(string program, string socket, bool ownsSocket, params string[] arguments)
    {
        (_program, Socket, _ownsSocket, _arguments) = (program, socket, ownsSocket, arguments);
        Start();
    }

    /// <summary>Where it listens.</summary>
    public string Socket { get; }

    /// <summary>Whether it runs; how it ended, by a signal (128 and its number), say, and what it said.</summary>
    public string Fate => _process is { HasExited: true } ended
        ? $"{_program} ended with {ended.ExitCode}: {_errors.Result}" : $"{_program} runs";

    /// <summary>Why it cannot be started here; null when it can. deploy/dev-setup installs both.</summary>
    public static string? WhyNot(string program)
    {
        try
        {
            NbdLibrary.Load();
        }
        catch (NbdUnavailableException missing)
        {
            return missing.Message;
        }

        string[] folders = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':');
        return folders.Any(folder => File.Exists(Path.Combine(folder, program))) ? null : $"{program} is not installed";
    }

    /// <summary>A raw file, served by QEMU's tools.</summary>
    public static NbdServer Qemu(string file, bool readOnly = false, string? socket = null)
    {
        string path = socket ?? NewSocket();
        string[] more = readOnly ? ["-r"] : [];
        return new NbdServer(
            "qemu-nbd", path, socket is null, ["-k", path, "-f", "raw", "-t", "-e", "64", "--discard=unmap", .. more, file]);
    }

    /// <summary>nbdkit with a plugin and filters.</summary>
    public static NbdServer Kit(params string[] arguments)
    {
        string path = NewSocket();
        return new NbdServer("nbdkit", path, true, ["-f", "-U", path, .. arguments]);
    }

    /// <summary>The same at a port of the loopback interface.</summary>
    public static NbdServer KitAtPort(int port, params string[] arguments) =>
        new("nbdkit", NewSocket(), true, ["-f", "-i", "127.0.0.1", "-p", $"{port}", .. arguments]);

    /// <summary>The disk that it serves.</summary>
    public NbdBackend Open(NbdOptions? options = null) =>
        NbdBackend.Open(options ?? new NbdOptions { Name = $"nbd+unix:{Socket}" }, NbdDialer.Unix(Socket));

    /// <summary>Starts it again, after <see cref="Kill"/>.</summary>
    public void Start()
    {
        ProcessStartInfo start = new(_program, _arguments) { RedirectStandardError = true, UseShellExecute = false };
        _process = StartOnThreadThatStays(start);
        _errors = _process.StandardError.ReadToEndAsync();
        for (int i = 0; i < 400; i++)
        {
            if (Listens())
            {
                return;
            }

            Assert.False(_process.HasExited, $"{_program} {string.Join(' ', _arguments)}: {Fate}");
            Thread.Sleep(25);
        }

        Assert.Fail($"{_program} does not listen at {Socket}");
    }

    /// <summary>Ends it at once.</summary>
    public void Kill()
    {
        if (_process is { } process)
        {
            process.Kill();
            process.WaitForExit();
            process.Dispose();
            _process = null;
            _over.Set();
        }

        File.Delete(Socket); // or what starts next waits for nobody
    }

    /// <summary>Stops it (SIGSTOP), or lets it go on: it answers nothing, and its connections stay.</summary>
    public void Hang(bool hangs)
    {
        using Process signal = Process.Start("kill", [hangs ? "-STOP" : "-CONT", $"{_process!.Id}"]);
        signal.WaitForExit();
    }

    public void Dispose()
    {
        Kill();
        if (_ownsSocket)
        {
            File.Delete(Socket);
        }
    }

    // nbdkit asks for SIGTERM when the thread that started it ends (PR_SET_PDEATHSIG of prctl(2)), and behind its first await a test goes
    // on another one.
    private Process StartOnThreadThatStays(ProcessStartInfo start)
    {
        TaskCompletionSource<Process> started = new();
        _over.Reset();
        new Thread(() =>
        {
            try
            {
                started.SetResult(Process.Start(start)!);
                _over.Wait();
            }
            catch (Exception cause)
            {
                started.TrySetException(cause);
            }
        })
        { IsBackground = true }.Start();
        return started.Task.GetAwaiter().GetResult();
    }

    private bool Listens()
    {
        int at = Array.IndexOf(_arguments, "-p");
        using FileDescriptorHandle? stream = at < 0 ? UnixStream.Connect(Socket, out _)
            : TcpConnect.Try(System.Net.IPAddress.Loopback, int.Parse(_arguments[at + 1], null), out _, CancellationToken.None);
        return stream is not null;
    }

    private static string NewSocket() => Path.Combine(Path.GetTempPath(), "nbd-" + Guid.NewGuid().ToString("N")[..12] + ".sock");
}
