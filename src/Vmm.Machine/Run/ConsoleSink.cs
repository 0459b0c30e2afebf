using Vmm.Devices.Legacy;
using Vmm.Devices.Virtio.Console;

namespace Vmm.Machine.Run;

/// <summary>What a guest writes goes to the far side.</summary>
internal sealed class ConsoleSink(IConsoleEndpoint console) : ISerialSink, IConsoleSink
{
    public void Write(ReadOnlySpan<byte> bytes) => console.Write(bytes);
}

/// <summary>What a guest writes goes nowhere.</summary>
internal sealed class NoSink : ISerialSink
{
    public void Write(ReadOnlySpan<byte> bytes) { }
}
