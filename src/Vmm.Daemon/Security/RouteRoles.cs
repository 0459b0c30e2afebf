using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Security;

/// <summary>Which route needs which role: the one table. A route that is not in it is closed to everybody.</summary>
internal static class RouteRoles
{
    private const string Api = "/api/v1";

    private static readonly Dictionary<(string Method, string Pattern), Role> s_roles = new()
    {
        [("GET", "/healthz")] = Role.Viewer,
        [("GET", "/metrics")] = Role.Viewer,
        [("GET", "/openapi/v1.json")] = Role.Viewer,
        [("GET", Api + "/host")] = Role.Viewer,
        [("GET", Api + "/schema/vm-spec.json")] = Role.Viewer,
        [("GET", Api + "/events")] = Role.Viewer,
        [("GET", Api + "/vms")] = Role.Viewer,
        [("POST", Api + "/vms")] = Role.Admin,
        [("GET", Api + "/vms/{name}")] = Role.Viewer,
        [("PUT", Api + "/vms/{name}")] = Role.Admin,
        [("DELETE", Api + "/vms/{name}")] = Role.Admin,
        [("GET", Api + "/vms/{name}/spec")] = Role.Viewer,
        [("GET", Api + "/vms/{name}/stats")] = Role.Viewer,
        [("GET", Api + "/vms/{name}/events")] = Role.Viewer,
        [("GET", Api + "/vms/{name}/console")] = Role.Operator, // it is the guest's keyboard
        [("GET", Api + "/vms/{name}/memory")] = Role.Viewer,
        [("PUT", Api + "/vms/{name}/memory")] = Role.Operator,
        [("POST", Api + "/vms/{name}/start")] = Role.Operator,
        [("POST", Api + "/vms/{name}/stop")] = Role.Operator,
        [("POST", Api + "/vms/{name}/pause")] = Role.Operator,
        [("POST", Api + "/vms/{name}/resume")] = Role.Operator,
        [("POST", Api + "/vms/{name}/power-button")] = Role.Operator,
        [("GET", Api + "/jobs")] = Role.Viewer,
        [("GET", Api + "/jobs/{id}")] = Role.Viewer,
        [("POST", Api + "/jobs/{id}/cancel")] = Role.Operator,
        [("GET", Api + "/disks")] = Role.Viewer,
        [("POST", Api + "/disks")] = Role.Admin,
        [("GET", Api + "/disks/{name}")] = Role.Viewer,
        [("DELETE", Api + "/disks/{name}")] = Role.Admin,
        [("GET", Api + "/tokens")] = Role.Admin,
        [("POST", Api + "/tokens")] = Role.Admin,
        [("DELETE", Api + "/tokens/{id}")] = Role.Admin,
    };

    /// <summary>The role that a route needs; null when the table does not have it.</summary>
    internal static Role? Of(string method, string pattern) => s_roles.TryGetValue((method, pattern), out Role role) ? role : null;
}
