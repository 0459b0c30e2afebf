using System.Runtime.InteropServices;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.State;

namespace Vmm.Run;

/// <summary>Runs a machine in this process, from its kernel or from where it was saved, to its end or to its save.</summary>
public static class ForegroundMachine
{
    private static readonly TimeSpan s_restTime = TimeSpan.FromSeconds(60); // for its devices to come to rest

    /// <summary>Runs it. A <see cref="MachineRunner"/>.</summary>
    public static RunResult Run(RunRequest request, IConsoleEndpoint console, Action<string>? note, CancellationToken stop)
    {
        using VirtualMachine machine = request.Restore is { } saved
            ? saved.Restore(new PathResources { Note = note }, console, cancel: stop)
            : VirtualMachine.Create(request.Spec, console, note);
        return request.SaveTo is null ? machine.Run(stop) : RunToSave(machine, request.SaveTo, note, stop);
    }

    /// <summary>
    /// Told to stop, it saves the machine and ends it. When that fails the machine goes on, and the next signal ends it as it would without
    /// a save.
    /// </summary>
    private static RunResult RunToSave(VirtualMachine machine, string folder, Action<string>? note, CancellationToken stop)
    {
        using CancellationTokenSource end = new();
        bool isSaved = false, hasFailed = false;
        Thread save = new(() =>
        {
            try
            {
                MachineSave.SaveAsync(machine, folder, s_restTime, goOn: false, cancel: CancellationToken.None).GetAwaiter().GetResult();
                Volatile.Write(ref isSaved, true);
                end.Cancel();
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or StateException or UnitsException
                or InvalidOperationException)
            {
                Volatile.Write(ref hasFailed, true);
                note?.Invoke($"{machine.Spec.Name}: it was not saved and runs on: {cause.Message}; another SIGTERM ends it");
            }
        })
        { Name = "save", IsBackground = true };

        void Again(PosixSignalContext signal)
        {
            signal.Cancel = true;
            if (Volatile.Read(ref hasFailed))
            {
                end.Cancel();
            }
        }

        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Again);
        using PosixSignalRegistration terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Again);
        RunResult result;
        using (stop.Register(save.Start))
        {
            result = machine.Run(end.Token);
        }

        if ((save.ThreadState & ThreadState.Unstarted) == 0)
        {
            save.Join();
        }

        return isSaved
            ? result with { Message = $"saved in {folder}; vmmctl run --restore {folder} goes on" }
            : result;
    }
}
