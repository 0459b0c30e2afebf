using System.Diagnostics;
using Vmm.Interop;

namespace Vmm.HostNet.Shares;

/// <summary>
/// Starts virtiofsd(1) for one shared folder, and starts it again. It sees nothing of the host but that folder: it is in mounts of its own
/// where the folder is at another place, read only if it is to be, and makes a root of that, with PID and network namespaces and a system
/// call filter. Started by root it keeps the capabilities that it needs to act as the guest's users; started by anybody else it is root
/// of a
/// user namespace in which there is nobody but that user. It ends when the other end of its socket is closed, whoever held it.
/// </summary>
public sealed class Virtiofsd(VirtiofsdOptions options) : IDisposable
{
    private const int ListenBacklog = 1;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly Lock _gate = new();
    private VirtiofsdRun? _run; // the last one; under the gate

    /// <summary>Process number of the one that was started last; null: none was.</summary>
    public int? ProcessId
    {
        get
        {
            lock (_gate)
            {
                return _run?.ProcessId;
            }
        }
    }

    /// <summary>Starts it and waits until it serves; the one before is killed, whatever it is at.</summary>
    /// <returns>The socket to it: it ends when the last descriptor of that is closed.</returns>
    /// <exception cref="HostShareException">It is not installed, or does not start; says why.</exception>
    public FileDescriptorHandle Start()
    {
        lock (_gate)
        {
            KillBefore();
            VirtiofsdProgram program = VirtiofsdProgram.Find(options.Program);
            (UnixListener listener, UnixStream stream) = Listen();
            try
            {
                using (listener)
                {
                    _run = Run(program, listener);
                }

                _run.WaitReady(stream, s_patience);
                return new FileDescriptorHandle(stream.Detach());
            }
            catch (HostShareException cause)
            {
                stream.Dispose();
                _run?.Kill();
                throw new HostShareException($"shared folder {options.Folder}: {cause.Message}", cause);
            }
            catch
            {
                stream.Dispose();
                throw;
            }
        }
    }

    /// <summary>Kills the one that was started last.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            KillBefore();
        }
    }

    // Without one of its own there may be one that an earlier process started, and that hangs.
    private void KillBefore()
    {
        if (_run is { } run)
        {
            run.Kill();
            _run = null;
        }
        else if (options.Mark is { } mark)
        {
            MarkedPrograms.Kill(mark);
        }
    }

    /// <summary>A listener that one client is connected to already, and whose name is gone: nobody else gets to it.</summary>
    private static (UnixListener Listener, UnixStream Stream) Listen()
    {
        string folder = Directory.CreateTempSubdirectory("vmm-share-").FullName; // of this user alone
        try
        {
            string path = Path.Combine(folder, "s");
            UnixListener listener = new(path, ListenBacklog);
            if (UnixStream.Connect(path, out int errno) is not { } stream)
            {
                listener.Dispose();
                throw new KernelException($"connect {path}", errno);
            }

            return (listener, stream);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private VirtiofsdRun Run(VirtiofsdProgram program, UnixListener listener)
    {
        bool isRoot = Environment.IsPrivilegedProcess;
        (UnixStream said, FileDescriptorHandle errors) = UnixStream.CreatePair();
        try
        {
            using (errors)
            using (FolderFile? held = options.Hold?.Invoke())
            {
                // What is held can be mounted by who may mount here; a child with mounts of its own has to find it again.
                string path = isRoot && held is not null ? held.HeldPath : options.Folder;
                SpawnFolder folder = new(path, VirtiofsdProgram.At, options.ReadOnly, OwnUser: !isRoot);
                return new VirtiofsdRun(
                    ProcessHandle.Spawn(program.Path, [.. program.Arguments(options.ReadOnly, isRoot)],
                        MarkedPrograms.Environment(options.Mark), [listener.Handle], isolated: false, errors, folder),
                    said, options.Said);
            }
        }
        catch (KernelException cause)
        {
            said.Dispose();
            string needs = isRoot ? "CAP_SYS_ADMIN" : "a user namespace of its own, which this host does not allow";
            throw new HostShareException(
                cause.Errno is Errno.EPERM or Errno.EACCES ? $"{cause.Message}: it needs {needs}" : cause.Message, cause);
        }
        catch
        {
            said.Dispose();
            throw;
        }
    }
}

/// <summary>One run of virtiofsd: a thread reads what it says until it ends.</summary>
internal sealed class VirtiofsdRun
{
    private const int MostLines = 200, LongestLine = 400;

    // What that of QEMU says at each end, as an error.
    private static readonly string[] s_noise = ["fv_remove_watch: TODO!", "virtio_loop: Unexpected poll revents"];

    private readonly ProcessHandle _process;
    private readonly UnixStream _said;
    private readonly Action<string>? _tell;
    private readonly Thread _reader;
    private readonly Lock _gate = new();
    private readonly List<string> _first = []; // lines of its start
    private bool _reaped; // under the gate
    private volatile bool _ready;

    internal VirtiofsdRun(ProcessHandle process, UnixStream said, Action<string>? tell)
    {
        (_process, _said, _tell, ProcessId) = (process, said, tell, process.ProcessId);
        _reader = new Thread(Read, maxStackSize: 256 * 1024) { Name = "virtiofsd", IsBackground = true };
        _reader.Start();
    }

    internal int ProcessId { get; }

    /// <summary>Waits for its first answer, to VHOST_USER_GET_FEATURES, which may be asked as often as one likes.</summary>
    /// <exception cref="HostShareException">There is none.</exception>
    internal void WaitReady(UnixStream stream, TimeSpan patience)
    {
        ReadOnlySpan<byte> question = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]; // request 1, version 1, no payload
        Span<byte> answer = stackalloc byte[20];
        _ = stream.Send(question);
        int length = 0;
        for (long begin = Stopwatch.GetTimestamp(); length < answer.Length && Stopwatch.GetElapsedTime(begin) < patience;)
        {
            Span<PollEntry> one = [new PollEntry(stream, read: true)];
            if (Poll.Wait(one, 100) == 0)
            {
                continue;
            }

            int received = stream.Receive(answer[length..]);
            if (received == 0)
            {
                _reader.Join(1000);
                throw new HostShareException("virtiofsd does not start: " + LastWords());
            }

            length += Math.Max(0, received);
        }

        _ready = length == answer.Length ? true
            : throw new HostShareException($"virtiofsd does not serve within {patience.TotalSeconds:0} s: {LastWords()}");
    }

    /// <summary>Ends it now. One that has ended is fine.</summary>
    internal void Kill()
    {
        lock (_gate)
        {
            if (!_reaped)
            {
                _process.KillGroup(); // it has a child, in a namespace of processes of its own
            }
        }
    }

    private string LastWords()
    {
        lock (_first)
        {
            return _first.Count == 0 ? "it does not say why" : string.Join("; ", _first.TakeLast(3));
        }
    }

    private void Read()
    {
        using (_said)
        {
            byte[] buffer = new byte[4096];
            List<char> line = [];
            int lines = 0, received;
            while ((received = _said.Receive(buffer)) != 0)
            {
                if (received < 0)
                {
                    Span<PollEntry> one = [new PollEntry(_said, read: true)];
                    _ = Poll.Wait(one, -1);
                    continue;
                }

                foreach (byte one in buffer.AsSpan(0, received))
                {
                    if (one != '\n')
                    {
                        if (line.Count < LongestLine)
                        {
                            line.Add(one is >= 0x20 and < 0x7f ? (char)one : ' ');
                        }
                    }
                    else if (line.Count > 0)
                    {
                        Take(new string([.. line]).Trim(), ref lines);
                        line.Clear();
                    }
                }
            }
        }

        _ = _process.Wait(-1);
        lock (_gate)
        {
            _reaped = true;
            _process.Dispose();
        }
    }

    private void Take(string line, ref int lines)
    {
        if (Array.Exists(s_noise, noise => line.StartsWith(noise, StringComparison.Ordinal)) || lines++ >= MostLines || line.Length == 0)
        {
            return; // one that the guest makes talk without end
        }

        if (_ready)
        {
            _tell?.Invoke(line);
            return;
        }

        lock (_first)
        {
            _first.Add(line);
        }
    }
}
