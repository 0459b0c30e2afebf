using System.Text;
using System.Text.Json;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Interop;

namespace Vmm.Daemon.Tests;

/// <summary>
/// The other end of a real <see cref="RemoteWorker"/>'s socket, whose process is one that sleeps. It answers what a good worker answers,
/// until a test has it
/// say something else.
/// </summary>
internal sealed class HostileWorker : IAsyncDisposable
{
    private static readonly Dictionary<string, string> s_usual = new(StringComparer.Ordinal)
    {
        [ControlKinds.Stats] = """{"cpuMilliseconds":1,"residentBytes":2,"exits":3,"disks":[],"nets":[]}""",
        [ControlKinds.Memory] =
            """
            {"vnodes":[{"vnode":0,"leastBytes":67108864,"mostBytes":134217728,"askedBytes":67108864,
            "presentBytes":67108864,"stuckBytes":0,"driven":true}],"balloon":null}
            """,
        [ControlKinds.Numa] = """{"vnodes":[{"vnode":0,"hostNodes":[],"policy":"auto","pageBytes":4096,"hostCpus":[],"threads":[]}]}""",
        [ControlKinds.Devices] = """{"devices":[]}""",
    };

    private readonly PacketSocket _socket;
    private readonly Thread _thread;
    private readonly ProcessHandle _process;

    internal HostileWorker(string folder, string vmId)
    {
        (PacketSocket theirs, PacketSocket ours) = PacketSocket.CreatePair();
        _socket = ours;
        _process = ProcessHandle.Spawn("/bin/sleep", ["1000"], new Dictionary<string, string>(StringComparer.Ordinal), []);
        WorkerLauncherOptions options =
            new() { Directory = folder, AnswerTimeout = TimeSpan.FromSeconds(5), StopTimeout = TimeSpan.FromSeconds(1) };
        options = options with { Disks = new DiskAccess(new([folder], [])) };
        Worker = new RemoteWorker(theirs, ProcessHandle.Open(_process.ProcessId), options, _ => { });
        Worker.Assign(new WorkerFiles(folder, vmId));
        _thread = new Thread(Serve) { IsBackground = true };
        _thread.Start();
    }

    /// <summary>The daemon's side.</summary>
    internal RemoteWorker Worker { get; }

    /// <summary>The JSON body of the answer to a kind; null is the usual.</summary>
    internal Func<string, string?>? Body { get; set; }

    /// <summary>Answers a request itself; true when it did.</summary>
    internal Func<ControlFrame, bool>? Answer { get; set; }

    /// <summary>Sends a frame as it is. False when the daemon does not take it in that time.</summary>
    internal bool Send(long id, string kind, string? body = null, int patience = 5000, params FileDescriptorHandle[] descriptors)
    {
        string names = descriptors.Length == 0
            ? ""
            : ",\"descriptors\":[" + string.Join(',', descriptors.Select((_, i) => $"\"d{i}\"")) + "]";
        return SendBytes(
            Frame($"{{\"id\":{id},\"kind\":{JsonSerializer.Serialize(kind)}{names}{(body is null ? "" : ",\"body\":" + body)}}}"),
            patience,
            descriptors);
    }

    internal bool SendBytes(byte[] bytes, int patience = 5000, params FileDescriptorHandle[] descriptors)
    {
        try
        {
            _socket.Send(bytes, descriptors, patience);
            return true;
        }
        catch (KernelException)
        {
            return false;
        }
    }

    internal static byte[] Frame(string json)
    {
        byte[] text = Encoding.UTF8.GetBytes(json);
        byte[] bytes = new byte[8 + text.Length];
        "VMC1"u8.CopyTo(bytes);
        BitConverter.TryWriteBytes(bytes.AsSpan(4), text.Length);
        text.CopyTo(bytes, 8);
        return bytes;
    }

    /// <summary>The process ends, and with it its end of the connection.</summary>
    internal void Die()
    {
        _process.Kill();
        _socket.Dispose();
    }

    public async ValueTask DisposeAsync()
    {
        _process.Kill();
        _socket.Dispose();
        await Worker.DisposeAsync();
        _process.Dispose();
    }

    private void Serve()
    {
        byte[] buffer = new byte[ControlCodec.MaxFrame];
        try
        {
            while (true)
            {
                PacketKind kind = _socket.Receive(buffer, 128, out int length, out FileDescriptorHandle[] descriptors);
                Array.ForEach(descriptors, d => d.Dispose());
                if (kind == PacketKind.End)
                {
                    return;
                }

                if (kind == PacketKind.Empty)
                {
                    Thread.Sleep(1);
                    continue;
                }

                ControlFrame frame = ControlCodec.TryDecode(buffer.AsSpan(0, length), descriptors.Length, out string problem)
                    ?? throw new InvalidOperationException(problem);
                if (Answer?.Invoke(frame) != true)
                {
                    if (frame.Kind is ControlKinds.Start or ControlKinds.Resume)
                    {
                        Send(0, ControlKinds.State, """{"state":"Running"}""");
                    }

                    Send(frame.Id, ControlKinds.Ok, Body?.Invoke(frame.Kind) ?? s_usual.GetValueOrDefault(frame.Kind));
                }
            }
        }
        catch (Exception e) when (e is KernelException or ObjectDisposedException)
        {
            // The test is over.
        }
    }
}
