using System.Buffers.Binary;
using System.Net.Sockets;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>
/// The moves of a fake worker: bytes really go through the channels, and whether all came is told back through the first.
/// </summary>
internal sealed class FakeMoves(FakeWorker worker) : IWorkerMoves
{
    internal const int Header = 9;

    private static readonly MoveInfo s_none = new(MoveStage.None, 0, 0, 0, 0, 0, 0, 0, 0);

    private List<NetworkStream> _channels = [];
    private VmState _before;
    private MoveInfo _info = s_none;

    /// <summary>Happens before each call is carried out, with its name: begin, status, stop, cancel.</summary>
    internal Func<string, CancellationToken, Task> Before { get; set; } = (_, _) => Task.CompletedTask;

    /// <summary>Calls so far.</summary>
    internal List<string> Calls { get; } = [];

    /// <summary>Bytes that go through each channel.</summary>
    internal int Payload { get; set; } = 100_000;

    /// <summary>It never says that what is left fits into the downtime.</summary>
    internal bool NeverConverges { get; set; }

    /// <summary>Its release knows how to pass memory.</summary>
    internal bool CanPassMemory { get; set; }

    internal MoveBody? Wish { get; private set; }

    public Task<bool> CanPassMemoryAsync() => Task.FromResult(CanPassMemory);

    public async Task BeginAsync(MoveBody wish, IReadOnlyList<FileDescriptorHandle> channels, CancellationToken cancellation)
    {
        await Enter("begin", cancellation);
        Assert.Equal(wish.Channels, channels.Count);
        (Wish, _before, _channels) = (wish, worker.State, [.. channels.Select(FakeChannel.Open)]);
        _info = new MoveInfo(MoveStage.Copying, 1, 64 << 20, 32 << 20, 32 << 20, 1 << 30, 1 << 20, 0, 12.5);
        for (int i = 0; i < _channels.Count; i++)
        {
            NetworkStream channel = _channels[i];
            byte[] all = new byte[Header + Payload];
            BinaryPrimitives.WriteInt32LittleEndian(all, i);
            BinaryPrimitives.WriteInt32LittleEndian(all.AsSpan(4), Payload);
            all[8] = (byte)(_before == VmState.Paused ? 1 : 0);
            _ = channel.WriteAsync(all, CancellationToken.None).AsTask();
        }
    }

    public async Task<MoveInfo> StatusAsync(CancellationToken cancellation)
    {
        await Enter("status", cancellation);
        MoveInfo now = _info;
        if (_info.Stage == MoveStage.Copying && !NeverConverges)
        {
            _info = _info with { Stage = MoveStage.Converged };
        }

        return now;
    }

    public async Task<MoveInfo> StopAsync(TimeSpan longest, CancellationToken cancellation)
    {
        await Enter("stop", cancellation);
        byte[] word = new byte[1];
        if (await _channels[0].ReadAsync(word, cancellation) != 1)
        {
            throw new WorkerException("move-failed", "the receiver is gone");
        }

        worker.Rest();
        _channels.ForEach(channel => channel.Dispose());
        return _info = _info with { Stage = MoveStage.HandedOver, DowntimeMilliseconds = 1.5 };
    }

    public async Task CancelAsync(CancellationToken cancellation)
    {
        await Enter("cancel", cancellation);
        _channels.ForEach(channel => channel.Dispose());
        if (_info.Stage != MoveStage.None)
        {
            worker.GoOn(_before);
        }

        _info = s_none;
    }

    private async Task Enter(string call, CancellationToken cancellation)
    {
        lock (Calls)
        {
            Calls.Add(call);
        }

        await Before(call, cancellation);
        if (worker.Ended.IsCompleted)
        {
            throw new WorkerException("worker-died", "it is gone");
        }
    }
}

/// <summary>A stream over a descriptor that belongs to somebody else.</summary>
internal static class FakeChannel
{
    internal static NetworkStream Open(FileDescriptorHandle descriptor) =>
        new(new Socket(new SafeSocketHandle(Dup((int)descriptor.DangerousGetHandle()), ownsHandle: true)), ownsSocket: true);

    private static int Dup(int descriptor) => Mono.Unix.Native.Syscall.dup(descriptor);
}

/// <summary>A fake worker that gets a VM.</summary>
internal sealed class FakeIncoming : IIncomingWorker
{
    private readonly FakeWorkers _all;
    private readonly string _vmId;
    private readonly VmSpec _spec;
    private readonly List<NetworkStream> _channels;
    private readonly CancellationTokenSource _ended = new();
    private volatile ReceiveInfo _info = new(ReceiveStage.Receiving, 0);
    private bool _completed;
    private volatile bool _wasPaused;

    internal FakeIncoming(FakeWorkers all, string vmId, string? moveId, VmSpec spec, IReadOnlyList<FileDescriptorHandle> channels)
    {
        (_all, _vmId, MoveId, _spec, _channels) = (all, vmId, moveId, spec, [.. channels.Select(FakeChannel.Open)]);
        Receiving = Task.Run(ReceiveAsync);
    }

    internal string? MoveId { get; }

    internal VmSpec Spec => _spec;

    internal Task Receiving { get; }

    internal bool IsDisposed { get; private set; }

    public async Task<ReceiveInfo> StatusAsync(CancellationToken cancellation)
    {
        await _all.Incoming("status", cancellation);
        return _info;
    }

    public async Task<IWorker> CompleteAsync(CancellationToken cancellation)
    {
        await _all.Incoming("complete", cancellation);
        Assert.Equal(ReceiveStage.Complete, _info.Stage);
        _completed = true;
        return _all.Add(_vmId, MoveId, _spec, _wasPaused ? VmState.Paused : VmState.Starting);
    }

    public ValueTask DisposeAsync()
    {
        IsDisposed = !_completed;
        _ended.Cancel();
        _channels.ForEach(channel => channel.Dispose());
        return ValueTask.CompletedTask;
    }

    private async Task ReceiveAsync()
    {
        ulong count = 0;
        try
        {
            for (int i = 0; i < _channels.Count; i++)
            {
                byte[] header = new byte[FakeMoves.Header];
                await _channels[i].ReadExactlyAsync(header, _ended.Token);
                if (BinaryPrimitives.ReadInt32LittleEndian(header) != i)
                {
                    throw new IOException($"channel {i} is another one");
                }

                byte[] payload = new byte[BinaryPrimitives.ReadInt32LittleEndian(header.AsSpan(4))];
                await _channels[i].ReadExactlyAsync(payload, _ended.Token);
                (_wasPaused, count) = (header[8] == 1, count + (ulong)payload.Length);
            }

            _info = new ReceiveInfo(ReceiveStage.Complete, count);
            await _channels[0].WriteAsync("K"u8.ToArray(), _ended.Token);
        }
        catch (Exception e) when (e is IOException or OperationCanceledException or ObjectDisposedException)
        {
            _info = new ReceiveInfo(ReceiveStage.Failed, count, e.Message);
            _channels.ForEach(channel => channel.Dispose()); // as a process that gives up
        }
    }
}
