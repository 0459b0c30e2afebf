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
    private readonly FrameStream _queue;
    private readonly ConnectorThread _connector;

    /// <summary>Takes ownership of a connected stream.</summary>
    /// <param name="stream">The stream.</param>
    /// <param name="options">How it is used.</param>
    public StreamNetBackend(FileDescriptorHandle stream, StreamNetOptions options)
    {
        // A thread of its own, made now: one that an I/O thread makes may do no more than that.
        _connector = new ConnectorThread(
            new ConnectorOptions
            {
                Name = options.Name,
                Lost = "user-mode networking (passt) is lost: {0}; the guest's link is down",
                Back = "user-mode networking (passt) is back, and the guest's link up",
                Connect = options.Connect,
                Note = options.Note,
                Pause = options.Pause,
            },
            Offer);
        _queue = new FrameStream(UnixStream.FromDescriptor(stream), _connector.Lost);
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
        _connector.Dispose();
        _queue.Dispose();
    }

    private void Offer(FileDescriptorHandle stream)
    {
        _queue.Offer(UnixStream.FromDescriptor(stream));
        Returning?.Invoke();
    }
}
