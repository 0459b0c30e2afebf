using Vmm.CommandLine;
using Vmm.Machine.Run;

namespace Vmm.Run;

/// <summary>The terminal as the far side of a machine's console.</summary>
internal sealed class RunConsole(TerminalConsole terminal) : IConsoleEndpoint
{
    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> output) => terminal.Write(output);

    /// <inheritdoc/>
    public int Read(Span<byte> input) => terminal.Read(input);

    /// <inheritdoc/>
    public void OnResize(Action<ushort, ushort> resized) => terminal.OnResize(resized);

    /// <inheritdoc/>
    public void InterruptRead() => terminal.InterruptRead();

    /// <summary>This machine is over: its read ends. The next one, after a reboot, reads on.</summary>
    public void StopReading() => terminal.InterruptRead();
}
