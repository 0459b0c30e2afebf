using System.Diagnostics;
using System.Globalization;
using System.Text;
using Vmm.Interop;

namespace Vmm.Devices.Virtio;

/// <summary>What a <see cref="ConnectorThread"/> does.</summary>
internal sealed record ConnectorOptions
{
    /// <summary>The device, which begins each remark, e.g. <c>net0</c>.</summary>
    public required string Name { get; init; }

    /// <summary>The remark when the far side is lost; {0} is why.</summary>
    public required string Lost { get; init; }

    /// <summary>The remark when it is back.</summary>
    public required string Back { get; init; }

    /// <summary>
    /// Gets another connected stream when one ended, or fails with an <see cref="IOException"/>; null: nobody does. Called on a thread that
    /// may block.
    /// </summary>
    public Func<CancellationToken, Task<FileDescriptorHandle>>? Connect { get; init; }

    /// <summary>Takes remarks; null when nobody reads them.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>The pause before the first attempt to connect; it doubles up to 30 s while streams do not last.</summary>
    public TimeSpan Pause { get; init; } = TimeSpan.FromSeconds(1);
}

/// <summary>
/// Connects a device again to the program behind it, which ended: a thread that sleeps until then, so that no I/O thread waits for a
/// connection.
/// </summary>
internal sealed class ConnectorThread : IDisposable
{
    private static readonly TimeSpan s_longestPause = TimeSpan.FromSeconds(30), s_lasting = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20); // of one attempt

    private readonly ConnectorOptions _options;
    private readonly Action<FileDescriptorHandle> _offer;
    private readonly CompositeFormat _lost;
    private readonly CancellationTokenSource _end = new();
    private readonly SemaphoreSlim _wish = new(0);
    private readonly Thread _thread;
    private volatile string _why = "";

    /// <summary>Makes it.</summary>
    /// <param name="options">What it does.</param>
    /// <param name="offer">Takes a new stream, and owns it, on this thread; a stream that is no good after all is an
    /// <see cref="IOException"/>.</param>
    internal ConnectorThread(ConnectorOptions options, Action<FileDescriptorHandle> offer)
    {
        _options = options;
        _offer = offer;
        _lost = CompositeFormat.Parse(options.Lost);
        _thread = new Thread(Serve, maxStackSize: 256 * 1024) { Name = options.Name + "-dial", IsBackground = true };
    }

    /// <summary>Makes it sleep until the first loss.</summary>
    internal void Start() => _thread.Start();

    /// <summary>The far side is lost: another is looked for. Any thread; never blocks.</summary>
    internal void Lost(string why)
    {
        _why = why;
        _wish.Release();
    }

    /// <summary>Ends it, also amid an attempt.</summary>
    public void Dispose()
    {
        _end.Cancel();
        if ((_thread.ThreadState & System.Threading.ThreadState.Unstarted) == 0)
        {
            _thread.Join();
        }

        _end.Dispose();
        _wish.Dispose();
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
                _options.Note?.Invoke($"{_options.Name}: {string.Format(CultureInfo.InvariantCulture, _lost, _why)}");
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
                _offer(connect(patience.Token).GetAwaiter().GetResult());
                _options.Note?.Invoke($"{_options.Name}: {_options.Back}");
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
