using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Vms;

/// <summary>The console of a VM.</summary>
internal sealed class VmConsole(VmSupervisor vm)
{
    /// <summary>A stream to it.</summary>
    /// <exception cref="ApiException">The VM does not run.</exception>
    internal async Task<Stream> OpenAsync(CancellationToken cancellation) =>
        await VmConsoleStream.OpenAsync(vm, cancellation).ConfigureAwait(false);

    /// <summary>
    /// The terminal behind a console has another size. A worker that ended or does not answer is no error of who tells so.
    /// </summary>
    internal async Task ResizeAsync(ConsoleSize size, CancellationToken cancellation)
    {
        try
        {
            await (vm.Worker?.ResizeConsoleAsync(size, cancellation) ?? Task.CompletedTask).ConfigureAwait(false);
        }
        catch (WorkerException)
        {
            return; // its console ends, too, and tells
        }
    }
}
