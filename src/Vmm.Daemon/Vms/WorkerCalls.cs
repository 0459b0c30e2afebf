using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Vms;

/// <summary>Calls of a worker on behalf of a client: what the worker refuses becomes an error of the API.</summary>
internal static class WorkerCalls
{
    /// <exception cref="ApiException">The worker refused or failed.</exception>
    internal static async Task CallAsync(Func<Task> command)
    {
        try
        {
            await command().ConfigureAwait(false);
        }
        catch (WorkerException e)
        {
            throw ToApi(e);
        }
    }

    /// <exception cref="ApiException">The worker refused or failed.</exception>
    internal static async Task<T> CallAsync<T>(Func<Task<T>> question)
    {
        try
        {
            return await question().ConfigureAwait(false);
        }
        catch (WorkerException e)
        {
            throw ToApi(e);
        }
    }

    internal static ApiException ToApi(WorkerException e) =>
        new(StatusOf(e.Code), e.Code, "the worker refused or failed", e.Message, inner: e);

    private static int StatusOf(string code) => code switch
    {
        ControlCodes.LimitsImpossible or ControlCodes.MemoryImpossible or ControlCodes.NoBalloon or ControlCodes.NotHotpluggable
            or ControlCodes.RehomeImpossible or ControlCodes.DiskShrinks or ControlCodes.DiskNotResizable => 422,
        ControlCodes.NoSpace => 507,
        ControlCodes.NoSuchDevice => 404,
        ControlCodes.NoSlot or ControlCodes.DeviceBusy or ControlCodes.DiskInUse or ControlCodes.WrongState or ControlCodes.WorkerTooOld =>
            409,
        _ => 502,
    };
}
