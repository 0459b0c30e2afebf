using Vmm.Devices.Virtio;
using Vmm.Interop;

namespace Vmm.Devices.VhostUser;

/// <summary>How a <see cref="VhostUserLink"/> is used.</summary>
public sealed record VhostUserLinkOptions
{
    /// <summary>The device, which begins each remark, e.g. <c>fs0</c>.</summary>
    public required string Name { get; init; }

    /// <summary>What is behind it, for remarks, e.g. <c>the shared folder data (virtiofsd)</c>.</summary>
    public required string Of { get; init; }

    /// <summary>
    /// Starts the program again and gets a stream to it, or fails with an <see cref="IOException"/>; the one before is dead then, whatever
    /// it was at. Null: nobody does. Called on a thread that may block.
    /// </summary>
    public Func<CancellationToken, Task<FileDescriptorHandle>>? Connect { get; init; }

    /// <summary>What starts the program: disposed with the link; null: nothing.</summary>
    public IDisposable? Owned { get; init; }

    /// <summary>Takes remarks; null when nobody reads them.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>The pause before the first attempt to connect.</summary>
    public TimeSpan Pause { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>How long the back end may take for one request.</summary>
    public TimeSpan Patience { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long it may take to give a ring back: as long as what it has at hand for the guest.</summary>
    public TimeSpan StopPatience { get; init; } = TimeSpan.FromSeconds(20);
}

/// <summary>
/// The connection of a device to its back end, and the next one when that is lost. Whoever serves the device's rings takes the front end
/// from here, and says when it is of no use any more.
/// </summary>
public sealed class VhostUserLink : IDisposable
{
    private readonly VhostUserLinkOptions _options;
    private readonly ConnectorThread _connector;
    private readonly Lock _gate = new();
    private VhostUserNeeds _needs; // of the next back end; written before there is one
    private VhostUserFrontEnd? _current;
    private bool _disposed;
    private long _losses, _completed;

    /// <summary>Speaks with the back end, which answers before this returns.</summary>
    /// <param name="stream">A connected socket, owned from here on, also when this throws.</param>
    /// <param name="needs">What it must be able to do.</param>
    /// <param name="options">How it is used.</param>
    /// <exception cref="VhostUserException">It cannot do what is needed, or does not answer.</exception>
    /// <exception cref="KernelException">No memory, or no descriptors.</exception>
    public VhostUserLink(FileDescriptorHandle stream, VhostUserNeeds needs, VhostUserLinkOptions options)
    {
        (_options, _needs) = (options, needs);
        try
        {
            Requests = needs.ConfigLength > 0 ? new BackEndRequests() : null;
            _current = Begin(stream);
            BackEndFeatures = _current.Features;
            FirstConfig = _current.Config.ToArray();
            Record = _current.Records ? new VhostUserRecord(needs.Rings, needs.RecordSize) : null;
            _needs = needs with { MustRecord = Record is not null };
        }
        catch
        {
            stream.Dispose();
            _current?.Dispose();
            Requests?.Dispose();
            options.Owned?.Dispose();
            throw;
        }

        _connector = new ConnectorThread(
            new ConnectorOptions
            {
                Name = options.Name,
                Lost = options.Of + " is lost: {0}",
                Back = options.Of + " is back",
                Connect = options.Connect,
                Note = options.Note,
                Pause = options.Pause,
            },
            Offer);
        _connector.Start();
    }

    /// <summary>A back end is there. Any thread.</summary>
    public bool IsConnected => Current is not null;

    /// <summary>Another back end is looked for when one is lost.</summary>
    internal bool Reconnects => _options.Connect is not null;

    /// <summary>How often a back end was lost. Any thread.</summary>
    public long Losses => Interlocked.Read(ref _losses);

    /// <summary>Chains that back ends completed, as far as somebody looked. Any thread.</summary>
    internal long Completed => Interlocked.Read(ref _completed);

    /// <summary>What the first back end knows of a device's features.</summary>
    internal ulong BackEndFeatures { get; }

    /// <summary>The record of requests in flight, of all back ends; null: they keep none.</summary>
    internal VhostUserRecord? Record { get; }

    /// <summary>Where back ends ask something of us; null: nowhere.</summary>
    internal BackEndRequests? Requests { get; }

    /// <summary>Called when a back end is there again, on a thread of the link.</summary>
    internal Action? Returned { get; set; }

    /// <summary>Called when a back end was lost. Any thread.</summary>
    internal Action? Gone { get; set; }

    /// <summary>
    /// Takes the configuration space that a back end has now, and whether it is another back end, or refuses it by a
    /// <see cref="VhostUserException"/>. Any thread.
    /// </summary>
    internal Action<ReadOnlyMemory<byte>, bool>? Configured { get; set; }

    /// <summary>The configuration space of the first back end.</summary>
    internal ReadOnlyMemory<byte> FirstConfig { get; }

    /// <summary>The back end that may be used; null: there is none now.</summary>
    internal VhostUserFrontEnd? Current
    {
        get
        {
            lock (_gate)
            {
                return _current;
            }
        }
    }

    /// <summary>
    /// A back end is of no use any more: another is looked for. It is told to end, and closed by who had it, when nothing of it is at work.
    /// </summary>
    internal void Lose(VhostUserFrontEnd lost, string why)
    {
        lock (_gate)
        {
            if (!ReferenceEquals(_current, lost))
            {
                return;
            }

            _current = null;
        }

        Interlocked.Increment(ref _losses);
        lost.Abandon();
        Gone?.Invoke();
        _connector.Lost(why);
    }

    /// <summary>So many chains more were completed.</summary>
    internal void AddCompleted(ushort chains) => Interlocked.Add(ref _completed, chains);

    /// <summary>Every further back end must know these features, too: a driver may have chosen them. Before there can be one.</summary>
    internal void Require(ulong features) => _needs = _needs with { Features = _needs.Features | features };

    /// <summary>Ends the connection, with which the back end ends.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
        }

        _connector.Dispose();
        Current?.Dispose();
        Record?.Dispose();
        Requests?.Dispose();
        _options.Owned?.Dispose();
    }

    private VhostUserFrontEnd Begin(FileDescriptorHandle stream)
    {
        try
        {
            return VhostUserFrontEnd.Begin(
                UnixStream.FromDescriptor(stream), _needs, _options.Patience, _options.StopPatience, Requests);
        }
        catch (VhostUserException cause)
        {
            throw new VhostUserException($"{_options.Name}: {_options.Of}: {cause.Message}", cause);
        }
    }

    private void Offer(FileDescriptorHandle stream)
    {
        VhostUserFrontEnd? found = null;
        try
        {
            found = Begin(stream);
            Configured?.Invoke(found.Config.ToArray(), true);
        }
        catch (VhostUserException cause)
        {
            found?.Dispose();
            throw new IOException(cause.Message, cause);
        }

        lock (_gate)
        {
            _current = found;
        }

        Returned?.Invoke();
    }
}
