namespace Vmm.Daemon.Workers;

/// <summary>The environment of workers: what their runtime needs and nothing of the daemon's.</summary>
internal static class WorkerEnvironment
{
    internal static Dictionary<string, string> Create()
    {
        Dictionary<string, string> environment = new(StringComparer.Ordinal)
        {
            // No debugger or profiler port: it would be a socket in /tmp and a thread, for every worker.
            ["DOTNET_EnableDiagnostics"] = "0",
            ["DOTNET_TieredPGO"] = "0",
        };
        // The runtime that runs this program: three folders above its libraries (shared/Microsoft.NETCore.App/VERSION).
        string? runtime = Environment.GetEnvironmentVariable("DOTNET_ROOT") ?? Root(typeof(object).Assembly.Location);
        if (runtime is not null)
        {
            environment["DOTNET_ROOT"] = runtime;
        }

        return environment;
    }

    private static string? Root(string library)
    {
        string? folder = library.Length > 0 ? Path.GetDirectoryName(library) : null;
        for (int i = 0; i < 3 && folder is not null; i++)
        {
            folder = Path.GetDirectoryName(folder);
        }

        return folder;
    }
}
