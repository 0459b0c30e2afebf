using System.Diagnostics;
using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>How a <see cref="StreamNetBackend"/> is used.</summary>
public sealed record StreamNetOptions
{
    /// <summary>Its name in remarks, e.g. <c>net0</c>.</summary>
    public string Name { get; init; } = "net";

    /// <summary>
    /// Gets another connected stream when one ended, or fails with an <see cref="IOException"/>; null: the link stays down then. Called on
    /// a thread that may block.
    /// </summary>
    public Func<CancellationToken, Task<FileDescriptorHandle>>? Connect { get; init; }

    /// <summary>Takes a remark when the far side is lost and when it is back; null when nobody reads them.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>The pause before the first attempt to connect; it doubles up to 30 s while streams do not last.</summary>
    public TimeSpan Pause { get; init; } = TimeSpan.FromSeconds(1);
}

/// <summary>
/// A program behind a stream socket takes the guest's frames (<see cref="FrameStream"/>): user-mode networking. When it ends or breaks the
/// protocol, the guest's link goes down, and comes up again with the next program.
/// </summary>
public sealed class StreamNetBackend : INetBackend
{
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(30), s_lasting = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20); // of one attempt

    private readonly StreamNetOptions _options;
    private readonly FrameStream _queue;
    private readonly CancellationTokenSource _end = new();
    private readonly SemaphoreSlim _wish = new(0);
    private readonly Thread _connector;
    private volatile string _why = "";

    /// <summary>Takes ownership of a connected stream.</summary>
    /// <param name="stream">The stream.</param>
    /// <param name="options">How it is used.</param>
    public StreamNetBackend(FileDescriptorHandle stream, StreamNetOptions options)
    {
        _options = options;
        _queue = new FrameStream(UnixStream.FromDescriptor(stream), Lost);
        // A thread of its own, made now: one that an I/O thread makes may do no more than that.
        _connector = new Thread(Serve, maxStackSize: 256 * 1024) { Name = options.Name + "-dial", IsBackground = true };
        _connector.Start();
    }

    /// <inheritdoc/>
    public int QueueCount => 1;

    /// <inheritdoc/>
    public TapOffloads Offloads => TapOffloads.None;

    /// <inheritdoc/>
    public SyscallNeeds ThreadNeeds => UnixStream.TransferNeeds;

    /// <inheritdoc/>
    public Action? Returning { get; set; }

    /// <inheritdoc/>
    public INetQueue Queue(int index) => _queue;

    /// <inheritdoc/>
    public bool SetOffloads(TapOffloads offloads) => offloads == TapOffloads.None;

    /// <inheritdoc/>
    public void SetActiveQueues(int count) { }

    /// <inheritdoc/>
    public void Dispose()
    {
        _end.Cancel();
        _connector.Join();
        _queue.Dispose();
        _end.Dispose();
        _wish.Dispose();
    }

    // On the I/O thread.
    private void Lost(string why)
    {
        _why = why;
        _wish.Release();
    }

    private void Serve()
    {
        try
        {
            TimeSpan pause = _options.Pause;
            while (true)
            {
                long begin = Stopwatch.GetTimestamp();
                _wish.Wait(_end.Token);
                pause = Stopwatch.GetElapsedTime(begin) > s_lasting ? _options.Pause : pause;
                _options.Note?.Invoke($"{_options.Name}: user-mode networking (passt) is lost: {_why}; the guest's link is down");
                if (_options.Connect is { } connect)
                {
                    ConnectAgain(connect, ref pause);
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The device is gone.
        }
    }

    private void ConnectAgain(Func<CancellationToken, Task<FileDescriptorHandle>> connect, ref TimeSpan pause)
    {
        string? told = null;
        while (true)
        {
            _end.Token.WaitHandle.WaitOne(pause);
            _end.Token.ThrowIfCancellationRequested();
            pause = pause + pause < s_longestPause ? pause + pause : s_longestPause;
            try
            {
                using CancellationTokenSource patience = CancellationTokenSource.CreateLinkedTokenSource(_end.Token);
                patience.CancelAfter(s_patience);
                _queue.Offer(UnixStream.FromDescriptor(connect(patience.Token).GetAwaiter().GetResult()));
                Returning?.Invoke();
                _options.Note?.Invoke($"{_options.Name}: user-mode networking (passt) is back, and the guest's link up");
                return;
            }
            catch (Exception cause) when (cause is IOException or OperationCanceledException && !_end.IsCancellationRequested)
            {
                if (!string.Equals(told, cause.Message, StringComparison.Ordinal))
                {
                    _options.Note?.Invoke($"{_options.Name}: {cause.Message}");
                }

                told = cause.Message;
            }
        }
    }
}
