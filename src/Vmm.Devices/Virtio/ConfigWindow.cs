namespace Vmm.Devices.Virtio;

/// <summary>
/// The configuration space of a device as its driver reads it, with the generation that lets a driver notice that the fields it read in
/// parts do not belong together (virtio 1.2 sections 2.5.1, 4.1.4.3.1, 4.2.2.1). Every look at the space compares it with what the last
/// look saw, so that no device has to report its changes. One caller at a time.
/// </summary>
/// <param name="device">The device whose space it is.</param>
internal sealed class ConfigWindow(VirtioDevice device)
{
    private byte[] _seen = new byte[device.ConfigLength];
    private byte[] _now = new byte[device.ConfigLength];
    private uint _generation;
    private bool _read;

    /// <summary>The generation now: another one than before when the space changed since it was last looked at.</summary>
    public uint Generation()
    {
        Look();
        return _generation;
    }

    /// <summary>Goes on from a saved generation; the next look is the first one again.</summary>
    public void Restore(uint generation)
    {
        _generation = generation;
        _read = false;
    }

    /// <summary>Reads bytes; those behind the space are zero.</summary>
    public void Read(int offset, Span<byte> data)
    {
        Look();
        data.Clear();
        if ((uint)offset < (uint)_seen.Length)
        {
            // What was compared is what the driver gets: a change behind the look counts for the next one.
            ReadOnlySpan<byte> rest = _seen.AsSpan(offset);
            rest[..Math.Min(rest.Length, data.Length)].CopyTo(data);
        }
    }

    /// <summary>The driver's own writes are no news to it.</summary>
    public void Write(int offset, ReadOnlySpan<byte> data)
    {
        Look();
        device.WriteConfig(offset, data);
        device.ReadConfig(0, _seen);
    }

    private void Look()
    {
        device.ReadConfig(0, _now);
        if (_read && !_now.AsSpan().SequenceEqual(_seen))
        {
            _generation++;
        }

        _read = true;
        (_seen, _now) = (_now, _seen);
    }
}
